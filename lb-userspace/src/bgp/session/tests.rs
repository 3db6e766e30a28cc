//! Sessions with fake time: single cases in `cases`; random ones against mutated messages in
//! `fuzz`, and against each other in `pair`.

mod cases;
mod fuzz;
mod pair;
mod world;
