//! quorate-role
