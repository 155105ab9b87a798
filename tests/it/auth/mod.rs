//! Keys and tokens: who may do what, on every transport and every path of the API.

mod api;
mod expiry;
mod keys;
mod refresh;
mod secrets;
mod subjects;
mod subscribe;
