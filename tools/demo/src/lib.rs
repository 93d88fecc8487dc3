//! Services for trying Moorgate out, what they say to clients ([`wire`]), and the secret that only `serve --dev` accepts.

pub mod echo;
pub mod token;
pub mod wire;
