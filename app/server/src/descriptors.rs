//! Whether the system lets this process open as many files and sockets as its own bounds allow.

use rustix::process::{Resource, getrlimit};

use crate::gateway::CONNECTIONS_MAX;
use crate::https::HTTP_CONNECTIONS_MAX;

/// Descriptors beside the connections: listeners, SAM ports, the database's, the runtime's.
const OTHERS: u64 = 256;

/// What all connections and the rest need.
fn needed() -> u64 {
    u64::try_from(CONNECTIONS_MAX + HTTP_CONNECTIONS_MAX).unwrap_or(u64::MAX) + OTHERS
}

/// How many descriptors a soft limit lacks; `None` for the limit means that there is none.
fn missing(soft: Option<u64>) -> Option<u64> {
    needed().checked_sub(soft?).filter(|missing| *missing > 0)
}

/// Warns if the soft limit is below what the bounds on connections promise. It is not raised: the
/// limit is the administrator's.
pub(crate) fn warn_if_few() {
    let soft = getrlimit(Resource::Nofile).current;
    if missing(soft).is_some() {
        let (soft, needed) = (soft.unwrap_or_default(), needed());
        tracing::warn!(
            soft,
            needed,
            "the limit on open files (ulimit -n, LimitNOFILE) is below what all connections need"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_below_the_bounds_is_noticed() {
        assert_eq!(missing(Some(1024)), Some(needed() - 1024));
        assert_eq!(missing(Some(needed() - 1)), Some(1));
        assert_eq!(missing(Some(needed())), None);
        assert_eq!(missing(Some(u64::MAX)), None);
        assert_eq!(missing(None), None);
    }
}
