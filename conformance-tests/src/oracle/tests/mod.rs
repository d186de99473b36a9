//! Hand-written histories: for each rule some that refute it and nothing else, and their nearest
//! legal neighbours. Then random legal executions, and single corruptions of them.

mod dsl;
mod handling;
mod model;
mod properties;
mod publishing;
mod purges;
mod whole;
