//! quorate-mysqld
