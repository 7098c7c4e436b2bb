//! What devices do, without a word about the board they do it on. Each module is a device worth copying: what it can be told, what it
//! reports, and one loop. A board implements the trait at the module's end and calls `run`.

#![no_std]

pub mod button;
pub mod lamp;
pub mod sensor;
pub mod thermostat;
