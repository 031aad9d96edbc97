//! quorate-simulation
