//! Round-robin over the servers of a role, those left out that others should spare for a while.

/// The servers of one role, which of them are up, and how many requests each has.
#[derive(Debug)]
pub struct Dispatcher {
    servers: Vec<Server>,
    next: usize,
}

#[derive(Debug)]
struct Server {
    node: u16,
    up: bool,
    /// Picked only where there is no other, before this.
    spared_until_ns: u64,
    in_flight: u32,
}

impl Server {
    fn new(node: u16, up: bool) -> Self {
        Self { node, up, spared_until_ns: 0, in_flight: 0 }
    }
}

impl Dispatcher {
    /// A dispatcher over `nodes`, none of them up.
    pub fn new(nodes: impl IntoIterator<Item = u16>) -> Self {
        let servers = nodes.into_iter().map(|node| Server::new(node, false)).collect();
        Self { servers, next: 0 }
    }

    /// How many servers the role has.
    pub fn len(&self) -> usize {
        self.servers.len()
    }
    /// Whether the role has no servers at all.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// Adds a server that may be up already, if it is not there.
    pub fn insert(&mut self, node: u16, up: bool) {
        match self.server(node) {
            Some(server) => server.up = up,
            None => self.servers.push(Server::new(node, up)),
        }
    }

    /// Takes a server out: it is picked no more. What it has in work is no longer counted.
    pub fn remove(&mut self, node: u16) {
        self.servers.retain(|server| server.node != node);
        self.next = 0;
    }

    /// Notes that a server came or went. One of another role is ignored.
    pub fn set_up(&mut self, node: u16, up: bool) {
        if let Some(server) = self.server(node) {
            server.up = up;
        }
    }

    /// Spares a server until then: it is behind, and what it is given would wait.
    pub fn spare(&mut self, node: u16, until_ns: u64) {
        if let Some(server) = self.server(node) {
            server.spared_until_ns = until_ns;
        }
    }

    /// The next server that is up, one that is spared only where there is no other, and counts one more request for it.
    pub fn pick(&mut self, now_ns: u64) -> Option<u16> {
        let count = self.servers.len();
        let in_turn = || (0..count).map(|step| (self.next + step) % count).filter(|index| self.servers[*index].up);
        let index =
            in_turn().find(|index| self.servers[*index].spared_until_ns <= now_ns).or_else(|| in_turn().next())?;
        self.next = (index + 1) % count;
        self.servers[index].in_flight += 1;
        Some(self.servers[index].node)
    }

    /// The servers' numbers.
    pub fn nodes(&self) -> impl Iterator<Item = u16> {
        self.servers.iter().map(|server| server.node)
    }

    /// Counts one more request that goes with one already picked, as in a batch.
    pub fn add(&mut self, node: u16, count: u32) {
        if let Some(server) = self.server(node) {
            server.in_flight += count;
        }
    }

    /// Counts one request less: it was answered, given up or moved.
    pub fn done(&mut self, node: u16) {
        if let Some(server) = self.server(node) {
            server.in_flight = server.in_flight.saturating_sub(1);
        }
    }

    /// Requests in flight at a server.
    pub fn in_flight(&self, node: u16) -> u32 {
        self.servers.iter().find(|server| server.node == node).map_or(0, |server| server.in_flight)
    }

    fn server(&mut self, node: u16) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.node == node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_in_turn_and_skips_those_that_are_down() {
        let mut dispatcher = Dispatcher::new([5, 6, 7]);
        assert_eq!(dispatcher.pick(0), None);
        for node in [5, 6, 7] {
            dispatcher.set_up(node, true);
        }
        let picked: Vec<_> = (0..6).filter_map(|_| dispatcher.pick(0)).collect();
        assert_eq!(picked, [5, 6, 7, 5, 6, 7]);
        dispatcher.set_up(6, false);
        let picked: Vec<_> = (0..4).filter_map(|_| dispatcher.pick(0)).collect();
        assert_eq!(picked, [5, 7, 5, 7]);
        assert_eq!(dispatcher.in_flight(5), 4);
        dispatcher.done(5);
        assert_eq!(dispatcher.in_flight(5), 3);
    }

    #[test]
    fn servers_come_and_go() {
        let mut dispatcher = Dispatcher::new([5, 6]);
        dispatcher.set_up(5, true);
        dispatcher.set_up(6, true);
        dispatcher.insert(7, true);
        dispatcher.insert(7, true);
        let picked: Vec<_> = (0..5).filter_map(|_| dispatcher.pick(0)).collect();
        assert_eq!((picked, dispatcher.len()), (vec![5, 6, 7, 5, 6], 3));
        dispatcher.remove(5);
        let picked: Vec<_> = (0..3).filter_map(|_| dispatcher.pick(0)).collect();
        assert_eq!((picked, dispatcher.len()), (vec![6, 7, 6], 2));
    }

    #[test]
    fn who_is_spared_is_picked_only_where_there_is_no_other() {
        let mut dispatcher = Dispatcher::new([5, 6, 7]);
        for node in [5, 6, 7] {
            dispatcher.set_up(node, true);
        }
        dispatcher.spare(6, 100);
        let picked = |dispatcher: &mut Dispatcher, now_ns| -> Vec<_> {
            (0..4).filter_map(|_| dispatcher.pick(now_ns)).collect()
        };
        assert_eq!(picked(&mut dispatcher, 99), [5, 7, 5, 7]);
        assert_eq!(picked(&mut dispatcher, 100), [5, 6, 7, 5]);
        dispatcher.set_up(5, false);
        dispatcher.spare(6, 200);
        dispatcher.spare(7, 200);
        assert_eq!(picked(&mut dispatcher, 199), [6, 7, 6, 7], "there is no other");
    }

    #[test]
    fn nodes_of_other_roles_are_ignored() {
        let mut dispatcher = Dispatcher::new([5]);
        dispatcher.set_up(9, true);
        dispatcher.done(9);
        assert_eq!((dispatcher.pick(0), dispatcher.in_flight(9)), (None, 0));
    }
}
