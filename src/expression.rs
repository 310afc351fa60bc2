//! Conditions over a token's claims, in the Common Expression Language (<https://cel.dev>).
//!
//! Operators write them in the configuration; they are compiled once, when it is loaded.

use std::fmt;

use serde_json::{Map, Value};

use crate::model::Invalid;

/// A compiled condition such as `"creator" in claims.roles`.
pub struct Expression {
    text: String,
    program: cel::Program,
}

impl Expression {
    /// Longer conditions are refused.
    pub const MAX_BYTES: usize = 4096;

    /// Compiles `text`.
    ///
    /// # Errors
    /// When it is too long or is no expression; the message says where.
    pub fn compile(text: &str) -> Result<Self, Invalid> {
        if text.len() > Self::MAX_BYTES {
            return Err(Invalid::new(format!("a condition has at most {} bytes", Self::MAX_BYTES)));
        }
        let program = cel::Program::compile(text).map_err(|error| Invalid::new(error.to_string()))?;
        Ok(Self { text: text.to_owned(), program })
    }

    /// Whether the condition is true of `claims`. Anything but `true` is false: an absent claim, an error, another type.
    pub fn holds(&self, claims: &Map<String, Value>) -> bool {
        let mut context = cel::Context::default();
        context.add_variable("claims", claims).is_ok()
            && matches!(self.program.execute(&context), Ok(cel::Value::Bool(true)))
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}
