//! quorate-mysql-wire
