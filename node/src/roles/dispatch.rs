//! Round-robin over the servers of a role.

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
    in_flight: u32,
}

impl Dispatcher {
    /// A dispatcher over `nodes`, none of them up.
    pub fn new(nodes: impl IntoIterator<Item = u16>) -> Self {
        let servers = nodes.into_iter().map(|node| Server { node, up: false, in_flight: 0 }).collect();
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
            None => self.servers.push(Server { node, up, in_flight: 0 }),
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

    /// The next server that is up, and counts one more request for it.
    pub fn pick(&mut self) -> Option<u16> {
        let count = self.servers.len();
        for step in 0..count {
            let index = (self.next + step) % count;
            let server = &mut self.servers[index];
            if server.up {
                self.next = (index + 1) % count;
                server.in_flight += 1;
                return Some(server.node);
            }
        }
        None
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
        assert_eq!(dispatcher.pick(), None);
        for node in [5, 6, 7] {
            dispatcher.set_up(node, true);
        }
        let picked: Vec<_> = (0..6).filter_map(|_| dispatcher.pick()).collect();
        assert_eq!(picked, [5, 6, 7, 5, 6, 7]);
        dispatcher.set_up(6, false);
        let picked: Vec<_> = (0..4).filter_map(|_| dispatcher.pick()).collect();
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
        let picked: Vec<_> = (0..5).filter_map(|_| dispatcher.pick()).collect();
        assert_eq!((picked, dispatcher.len()), (vec![5, 6, 7, 5, 6], 3));
        dispatcher.remove(5);
        let picked: Vec<_> = (0..3).filter_map(|_| dispatcher.pick()).collect();
        assert_eq!((picked, dispatcher.len()), (vec![6, 7, 6], 2));
    }

    #[test]
    fn nodes_of_other_roles_are_ignored() {
        let mut dispatcher = Dispatcher::new([5]);
        dispatcher.set_up(9, true);
        dispatcher.done(9);
        assert_eq!((dispatcher.pick(), dispatcher.in_flight(9)), (None, 0));
    }
}
