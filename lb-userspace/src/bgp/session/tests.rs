//! Sessions with fake time: single cases here, random ones in the files beside.

mod pair;
mod world;
