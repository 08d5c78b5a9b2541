//! Which sources of a group are wanted (RFC 9776 3.2, RFC 9777 4.2).

use surrogate_wire::membership::Address;

/// Sources of one group. Of more that are wanted, all are; of more that are not, the first are not: what the guest
/// wants, it gets.
pub const MAX_SOURCES: usize = 16;

/// These sources alone, or all but these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter<A> {
    pub(super) include: bool,
    pub(super) sources: Vec<A>,
}

impl<A: Address> Filter<A> {
    /// All sources.
    pub(super) const ALL: Self = Self { include: false, sources: Vec::new() };
    /// None.
    pub(super) const NOTHING: Self = Self { include: true, sources: Vec::new() };

    /// Whether `source` is wanted.
    pub(super) fn wants(&self, source: A) -> bool {
        self.sources.contains(&source) == self.include
    }

    /// Whether none is: then the guest is not in the group.
    pub(super) fn is_nothing(&self) -> bool {
        self.include && self.sources.is_empty()
    }

    /// `sources` are wanted too. Whether they could be noted.
    pub(super) fn want(&mut self, sources: impl Iterator<Item = A>) -> bool {
        if !self.include {
            sources.for_each(|source| self.sources.retain(|unwanted| *unwanted != source));
            return true;
        }
        for source in sources {
            if !self.list(source) {
                *self = Self::ALL;
                return false;
            }
        }
        true
    }

    /// `sources` are wanted no more. Whether they could be noted.
    pub(super) fn refuse(&mut self, mut sources: impl Iterator<Item = A>) -> bool {
        if self.include {
            sources.for_each(|source| self.sources.retain(|wanted| *wanted != source));
            return true;
        }
        sources.all(|source| self.list(source))
    }

    fn list(&mut self, source: A) -> bool {
        let listed = self.sources.contains(&source);
        if !listed && self.sources.len() < MAX_SOURCES {
            self.sources.push(source);
            return true;
        }
        listed
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;

    fn sources(count: u8) -> impl Iterator<Item = Ipv4Addr> {
        (0..count).map(|n| Ipv4Addr::new(192, 0, 2, n))
    }

    #[test]
    fn wanted_and_refused_sources_are_told_apart() {
        let mut filter = Filter::NOTHING;
        assert!(filter.want(sources(3)) && filter.refuse(sources(2)));
        assert_eq!(filter.sources, [Ipv4Addr::new(192, 0, 2, 2)]);
        assert!(filter.wants(Ipv4Addr::new(192, 0, 2, 2)) && !filter.wants(Ipv4Addr::new(192, 0, 2, 1)));
        assert!(filter.refuse(sources(3)) && filter.is_nothing());

        let mut filter = Filter::ALL;
        assert!(filter.refuse(sources(3)) && filter.want(sources(2)));
        assert_eq!(filter.sources, [Ipv4Addr::new(192, 0, 2, 2)]);
        assert!(!filter.wants(Ipv4Addr::new(192, 0, 2, 2)) && filter.wants(Ipv4Addr::new(192, 0, 2, 1)));
    }

    #[test]
    fn beyond_the_limit_more_is_wanted_never_less() {
        let most = u8::try_from(MAX_SOURCES).unwrap();
        let mut filter = Filter::NOTHING;
        assert!(filter.want(sources(most)) && filter.want(sources(most)), "the same again");
        assert!(!filter.want(sources(most + 1)));
        assert_eq!(filter, Filter::ALL);
        assert!(!filter.refuse(sources(most + 1)));
        assert_eq!((filter.include, filter.sources.len()), (false, MAX_SOURCES));
    }
}
