//! quorate-binlog
