//! Services for trying Moorgate out, and the secret that only `serve --dev` accepts.

pub mod echo;
pub mod token;
