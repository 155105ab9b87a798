//! Who may do what: credentials, and the grants that they bring.

mod jwks;
pub mod jwt;
pub mod token;
