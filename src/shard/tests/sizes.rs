//! What an idle client costs.
