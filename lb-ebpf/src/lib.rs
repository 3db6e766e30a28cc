//! Empty: it exists so that `lb-userspace` can name this package as a build dependency.
#![no_std]
