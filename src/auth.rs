//! Who may do what: credentials, and the grants that they bring.

pub mod token;
