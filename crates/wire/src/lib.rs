//! quorate-wire
