//! Whether the system lets this process open as many files and sockets as its own bounds allow.

use rustix::process::{Resource, getrlimit};

use crate::https::HTTP_CONNECTIONS_MAX;

/// Descriptors beside the connections: listeners, SAM ports, the database's, the runtime's.
const OTHERS: u64 = 256;

/// What so many connections of devices and all the rest need.
fn needed(connections: usize) -> u64 {
    u64::try_from(connections + HTTP_CONNECTIONS_MAX).unwrap_or(u64::MAX).saturating_add(OTHERS)
}

/// How many descriptors a soft limit lacks; `None` for the limit means that there is none.
fn missing(connections: usize, soft: Option<u64>) -> Option<u64> {
    needed(connections).checked_sub(soft?).filter(|missing| *missing > 0)
}

/// Warns if the soft limit is below what the bounds on connections promise. It is not raised: the
/// limit is the administrator's.
pub(crate) fn warn_if_few(connections: usize) {
    let soft = getrlimit(Resource::Nofile).current;
    if missing(connections, soft).is_some() {
        let (soft, needed) = (soft.unwrap_or_default(), needed(connections));
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
        let needed = needed(18_000);
        assert_eq!(missing(18_000, Some(1024)), Some(needed - 1024));
        assert_eq!(missing(18_000, Some(needed - 1)), Some(1));
        assert_eq!(missing(18_000, Some(needed)), None);
        assert_eq!(missing(18_001, Some(needed)), Some(1));
        assert_eq!(missing(18_000, Some(u64::MAX)), None);
        assert_eq!(missing(18_000, None), None);
    }
}
