//! Faults that a test has the database make. A server injects none.

use std::sync::Arc;

use crate::StoreError;

/// How a transaction whose closure succeeded fails in spite of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The database goes away before the commit: [`StoreError::Unreachable`], nothing is stored.
    Undone,
    /// The connection is lost with the commit: [`StoreError::Uncertain`], nothing is stored.
    LostBefore,
    /// The connection is lost with the answer to the commit: [`StoreError::Uncertain`], but all is
    /// stored.
    LostAfter,
}

impl Fault {
    pub(crate) fn error(self) -> StoreError {
        let detail = "injected fault".to_owned();
        match self {
            Self::Undone => StoreError::Unreachable { detail },
            Self::LostBefore | Self::LostAfter => StoreError::Uncertain { detail },
        }
    }

    pub(crate) const fn is_stored(self) -> bool {
        matches!(self, Self::LostAfter)
    }
}

type Draw = dyn Fn(&'static str) -> Option<Fault> + Send + Sync;

/// Which transactions fail: asked with a transaction's name when its closure has succeeded.
#[derive(Clone, Default)]
pub(crate) struct Faults(Option<Arc<Draw>>);

impl Faults {
    pub(crate) fn new(
        draw: impl Fn(&'static str) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(draw)))
    }

    pub(crate) fn draw(&self, name: &'static str) -> Option<Fault> {
        self.0.as_ref().and_then(|draw| draw(name))
    }
}
