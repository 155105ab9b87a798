//! Many gateways as one, over real Redis servers, through the front door.

#[macro_use]
pub mod table;

mod access;
mod delivery;
mod doctor;
mod faults;
mod foreign;
mod interest;
mod manage;
mod processes;
mod start;
mod tls;
