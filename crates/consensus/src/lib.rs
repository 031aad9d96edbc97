//! quorate-consensus

pub mod apply;
