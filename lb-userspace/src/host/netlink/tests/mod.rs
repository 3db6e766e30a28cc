//! Tests of the resolver: its pure halves as tables, and the whole of it against a real kernel.

mod kernel;
mod lab;
mod pure;
