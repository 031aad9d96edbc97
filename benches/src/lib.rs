//! quorate-benches
