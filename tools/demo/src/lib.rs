//! Services for trying Moorgate out, what they say to clients ([`wire`]), and the secret that only `serve --dev` accepts.
//!
//! [`echo`], [`accounts`] and [`chat`] run within `moorgate serve --dev`, or as processes of their own
//! (`moorgate-demo accounts --listen 127.0.0.1:7110 --key-file accounts.key`).

pub mod accounts;
pub mod chat;
mod clock;
mod company;
pub mod echo;
mod password;
mod seen;
pub mod token;
pub mod wire;
