//! The steps that a replica, its disk and the network can take, and what each does.

use super::checks;
use super::log::{Entry, Epoch, Kind, Log, SLOTS, Slot, slot_name};
use super::protocol::{Mistake, Protocol};
use super::state::{Copied, Holding, Replica, State, Token, Used};
use stateright::{Model, Property};
use std::fmt;

/// One step. Logs in it are the result, so that a trace can be read without the states.
#[derive(Clone, PartialEq)]
pub(crate) enum Step {
    /// The holder orders an entry and sends it to all.
    Order { slot: Slot, kind: Kind },
    /// `Data` arrives, or is fetched, and is appended; the sync is a step of its own.
    Append { slot: Slot, log: Log },
    /// The vote file gets the promise and the cut, the log is truncated to the common prefix, and what was chosen is
    /// appended, all of it or in steps.
    Install { slot: Slot, log: Log, start: u8 },
    /// A group commit returns.
    Sync { slot: Slot },
    /// The vote file's sync returns: who asks sends its question, who was asked answers.
    SyncVote { slot: Slot },
    /// A catalog asks for a new epoch.
    Ask { slot: Slot, epoch: Epoch },
    /// A question arrives: no more ordering, appending and acknowledging below it.
    Promise { slot: Slot, epoch: Epoch },
    /// Enough promises are there: the coordinator has chosen this log, and keeps of its own what is in both.
    Choose { slot: Slot, chosen: Log },
    /// It has all of the chosen log, and starts its epoch behind it.
    Start { slot: Slot, chosen: Log },
    /// The holder passes the token.
    Pass { slot: Slot, to: Slot },
    /// A token arrives.
    Take { token: Token },
    /// The passer sends its copy again, on a new connection to the same process.
    Resend { slot: Slot },
    /// The passer orders by its copy: a planted mistake.
    TakeBack { slot: Slot },
    /// A replica counts acknowledgements up to here.
    Count { slot: Slot, committed: u8 },
    /// A frame of this epoch tells what is committed.
    Learn { slot: Slot, epoch: Epoch, committed: u8 },
    /// The process dies, and another starts from the disk.
    Crash { slot: Slot },
    /// The disk is lost with the process, and another starts on an empty one.
    Wipe { slot: Slot },
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Step::Order { slot, kind } => {
                let what = match kind {
                    Kind::NewEpoch => "an epoch".to_owned(),
                    Kind::Write(number) => format!("w{}", number + 1),
                    Kind::SwapFirst => "the first change".to_owned(),
                    Kind::SwapSecond => "the second change".to_owned(),
                    Kind::SwapDirect => "the direct swap".to_owned(),
                };
                write!(f, "{} orders {what}", slot_name(slot))
            }
            Step::Append { slot, log } => write!(f, "{} appends {log}", slot_name(slot)),
            Step::Install { slot, log, start } => write!(f, "{} installs {}", slot_name(slot), log.prefix(start)),
            Step::Sync { slot } => write!(f, "{} syncs its log", slot_name(slot)),
            Step::SyncVote { slot } => write!(f, "{} syncs its vote file", slot_name(slot)),
            Step::Ask { slot, epoch } => write!(f, "{} asks for {epoch}", slot_name(slot)),
            Step::Promise { slot, epoch } => write!(f, "{} promises {epoch}", slot_name(slot)),
            Step::Choose { slot, chosen } => write!(f, "{} chooses {chosen}, and fetches", slot_name(slot)),
            Step::Start { slot, chosen } => write!(f, "{} starts its epoch on {chosen}", slot_name(slot)),
            Step::Pass { slot, to } => write!(f, "{} passes the token to {}", slot_name(slot), slot_name(to)),
            Step::Take { token } => {
                let again = if token.resent { ", sent again," } else { "" };
                write!(f, "{} takes the token{again} of hop {}", slot_name(token.to), token.hop)
            }
            Step::Resend { slot } => write!(f, "{} sends the token again", slot_name(slot)),
            Step::TakeBack { slot } => write!(f, "{} takes the token back", slot_name(slot)),
            Step::Count { slot, committed } => write!(f, "{} counts {committed} committed", slot_name(slot)),
            Step::Learn { slot, epoch, committed } => {
                write!(f, "{} learns in a frame of {epoch} that {committed} are committed", slot_name(slot))
            }
            Step::Crash { slot } => write!(f, "{} crashes and restarts", slot_name(slot)),
            Step::Wipe { slot } => write!(f, "{} loses its disk and restarts", slot_name(slot)),
        }
    }
}

/// The epoch in which every model begins, with its first entry committed and slot a holding the token.
pub(crate) fn first_epoch() -> Epoch {
    Epoch::new(1, 0)
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let epoch = first_epoch();
        let log = Log::default().push(Entry::new(epoch, Kind::NewEpoch));
        let voter = Replica {
            platter: log,
            vote: epoch,
            cut: epoch,
            log,
            promised: epoch,
            committed: 1,
            answered: epoch,
            ..Replica::default()
        };
        let mut replicas = [voter, voter, voter, Replica::default()];
        replicas[epoch.coordinator()].token = Some(Holding { hop: 0, base: log, by_resend: false });
        let mut state = State {
            replicas,
            rounds: Vec::new(),
            data: vec![log],
            tokens: Vec::new(),
            used: Used::default(),
            history: log,
            forgotten: 0,
            harm: 0,
        };
        let round = state.round_mut(epoch);
        round.acks = [log, log, log, Log::default()];
        round.committed = 1;
        vec![state]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for slot in 0..self.slots() {
            self.holder_steps(state, slot, steps);
            self.data_steps(state, slot, steps);
            self.disk_steps(state, slot, steps);
            self.epoch_steps(state, slot, steps);
            if !self.bounds.merged {
                self.commit_steps(state, slot, steps);
            }
            self.fault_steps(state, slot, steps);
        }
        for &token in &state.tokens {
            let to = &state.replicas[token.to];
            if to.promised == token.epoch && to.boot == token.boot && token.hop > to.received {
                steps.push(Step::Take { token });
            }
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        self.apply(&mut next, step);
        if self.bounds.merged {
            self.settle(&mut next);
        }
        next.check_promises();
        let keep_copies = self.has(Mistake::TokenRemade) || self.has(Mistake::TokenToAnotherBoot);
        next.forget_the_dead(self.slots(), keep_copies);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        if self.hunted != 0 {
            return checks::hunted();
        }
        let mut properties = checks::always();
        properties.extend(checks::sometimes(self));
        properties
    }
}

// What can be done.
impl Protocol {
    fn holder_steps(&self, state: &State, slot: Slot, steps: &mut Vec<Step>) {
        let me = &state.replicas[slot];
        if let Some(token) = me.token {
            if token.base == me.log && me.installed() && !me.log.is_full() {
                if state.used.writes < self.bounds.writes {
                    steps.push(Step::Order { slot, kind: Kind::Write(state.used.writes) });
                }
                steps.extend(self.next_change(me).map(|kind| Step::Order { slot, kind }));
            }
            if state.used.passes < self.bounds.passes {
                let others = (0..self.slots()).filter(|&to| to != slot && self.is_catalog(to));
                steps.extend(others.map(|to| Step::Pass { slot, to }));
            }
        }
        let Some(copy) = me.copy else { return };
        let to = &state.replicas[copy.to];
        let taken = to.promised == me.promised && to.received >= copy.hop;
        let same_process = to.boot == copy.boot;
        let may_resend = !taken && (same_process || self.has(Mistake::TokenToAnotherBoot));
        if may_resend && state.used.resends < self.bounds.resends {
            steps.push(Step::Resend { slot });
        }
        if self.has(Mistake::TokenRemade) {
            steps.push(Step::TakeBack { slot });
        }
    }

    /// The change of voters that the holder may order now.
    fn next_change(&self, holder: &Replica) -> Option<Kind> {
        self.bounds.swap?;
        let log = holder.log;
        let epoch_committed = log.start_of(holder.promised).is_some_and(|start| holder.committed >= start);
        if !epoch_committed || log.find(Kind::SwapDirect).or(log.find(Kind::SwapSecond)).is_some() {
            return None;
        }
        match log.find(Kind::SwapFirst) {
            None if self.has(Mistake::DirectSwap) => Some(Kind::SwapDirect),
            None => Some(Kind::SwapFirst),
            Some(first) if holder.committed >= first || self.has(Mistake::TwoChangesInFlight) => Some(Kind::SwapSecond),
            Some(_) => None,
        }
    }

    fn data_steps(&self, state: &State, slot: Slot, steps: &mut Vec<Step>) {
        let me = &state.replicas[slot];
        let (installed, installing) = (me.installed(), me.installing());
        let by_seq = self.has(Mistake::AppendBySeq);
        let before = steps.len();
        if let Some(entry) = me.choice.and_then(|choice| choice.get(me.log.len() + 1)) {
            steps.push(Step::Append { slot, log: me.log.push(entry) });
        }
        for &sent in &state.data {
            let len = me.log.len();
            let Some(entry) = sent.get(len + 1) else { continue };
            let fits = by_seq || me.log.is_prefix_of(sent);
            let of_my_epoch = installed && entry.epoch() == me.promised;
            let of_my_install = installing && sent.start_of(me.promised).is_some();
            if fits && (of_my_epoch || of_my_install) {
                let log = me.log.push(entry);
                push_once(steps, before, Step::Append { slot, log });
            }
        }
        for &sent in &state.data {
            for seq in 1..=sent.len() {
                let Some(entry) = sent.get(seq) else { continue };
                let epoch = entry.epoch();
                let begins = entry.kind() == Kind::NewEpoch && epoch >= me.promised;
                let log = sent.prefix(seq);
                let under_way = installing && epoch == me.promised && me.log.is_prefix_of(log);
                if begins && me.log.start_of(epoch).is_none() && !under_way {
                    push_once(steps, before, Step::Install { slot, log, start: seq });
                }
            }
        }
    }

    fn disk_steps(&self, state: &State, slot: Slot, steps: &mut Vec<Step>) {
        let me = &state.replicas[slot];
        if me.log != me.platter {
            steps.push(Step::Sync { slot });
        }
        if me.promised > me.vote {
            steps.push(Step::SyncVote { slot });
        }
    }

    fn epoch_steps(&self, state: &State, slot: Slot, steps: &mut Vec<Step>) {
        let me = &state.replicas[slot];
        let askers = self.bounds.asks.get(usize::from(state.used.asks)).copied().unwrap_or(0);
        if askers & 1 << slot != 0 {
            let counter = me.promised.counter() + 1;
            steps.push(Step::Ask { slot, epoch: Epoch::new(counter, slot) });
            let refused = state.replicas.iter().map(|replica| replica.promised.counter() + 1).max().unwrap_or(0);
            if self.bounds.asks_above_refusals && refused > counter {
                steps.push(Step::Ask { slot, epoch: Epoch::new(refused, slot) });
            }
        }
        if !me.wiped || self.has(Mistake::EmptyDiskVotes) {
            let asked = state.rounds.iter().filter(|round| round.asked.is_some() && round.epoch > me.promised);
            steps.extend(asked.map(|round| Step::Promise { slot, epoch: round.epoch }));
        }
        if me.asking && me.vote == me.promised && !me.log.is_full() {
            self.start_steps(state, slot, steps);
        }
    }

    /// Every log that some set of the promises lets the coordinator choose. A promise that was dropped because its
    /// owner died is one that is not in the set.
    fn start_steps(&self, state: &State, slot: Slot, steps: &mut Vec<Step>) {
        let me = &state.replicas[slot];
        let answers = state.round(me.promised).map_or([None; SLOTS], |round| round.promises);
        let before = steps.len();
        for set in 0..1_u8 << self.slots() {
            let given = (0..self.slots()).filter(|other| set & 1 << other != 0).all(|other| answers[other].is_some());
            if !given || set & 1 << slot != 0 {
                continue;
            }
            let logs = (0..self.slots()).filter(|other| set & 1 << other != 0).filter_map(|other| answers[other]);
            let chosen = logs.fold(me.log, |best, log| {
                if (log.last_epoch(), log.len()) > (best.last_epoch(), best.len()) { log } else { best }
            });
            let decides = if self.has(Mistake::AskersConfiguration) { me.log } else { chosen };
            let own = if me.wiped && !self.has(Mistake::EmptyDiskVotes) { 0 } else { 1 << slot };
            let voters = self.voters(decides);
            if ((set | own) & voters).count_ones() >= self.majority(voters) && !chosen.is_full() {
                // Its own log is the chosen one as soon as it is fetched, so that nothing is chosen twice.
                let fetched = chosen.is_prefix_of(me.log) || !self.bounds.installs_in_parts;
                if fetched {
                    push_once(steps, before, Step::Start { slot, chosen });
                } else if me.choice != Some(chosen) {
                    push_once(steps, before, Step::Choose { slot, chosen });
                }
            }
        }
    }

    fn commit_steps(&self, state: &State, slot: Slot, steps: &mut Vec<Step>) {
        let me = &state.replicas[slot];
        let counted = self.count(state, slot);
        if counted > me.committed {
            steps.push(Step::Count { slot, committed: counted });
        }
        for round in &state.rounds {
            let mine = round.epoch == me.promised && me.installed();
            let early = self.has(Mistake::CommittedBeforeInstall) && round.epoch >= me.promised;
            let committed = round.committed.min(me.log.len());
            if (mine || early) && committed > me.committed.max(counted) {
                steps.push(Step::Learn { slot, epoch: round.epoch, committed });
            }
        }
    }

    /// What `slot` finds committed by the acknowledgements of its epoch, 0 if nothing.
    fn count(&self, state: &State, slot: Slot) -> u8 {
        let me = &state.replicas[slot];
        let Some(round) = state.round(me.promised) else { return 0 };
        let start = match me.log.start_of(me.promised) {
            Some(start) => start,
            None if self.has(Mistake::AcknowledgeHalfInstall) && me.installing() => Log::LEN_MAX,
            None => return 0,
        };
        let voters = self.voters(me.log);
        let mut durable = [0; SLOTS];
        for (voter, acked) in round.acks.iter().enumerate() {
            // The hash is compared at the acknowledged seq, or at my end when that is beyond it.
            if voters & 1 << voter != 0 && acked.agrees_with(me.log) {
                durable[voter] = acked.common(me.log);
            }
        }
        durable.sort_unstable_by(|one, other| other.cmp(one));
        let committed = durable[self.majority(voters) as usize - 1];
        if committed >= start || self.has(Mistake::CommitBeforeNewEpoch) { committed } else { 0 }
    }

    fn fault_steps(&self, state: &State, slot: Slot, steps: &mut Vec<Step>) {
        let me = &state.replicas[slot];
        let expected = state.tokens.iter().any(|token| token.to == slot);
        let copied = state.replicas.iter().any(|other| other.copy.is_some_and(|copy| copy.to == slot));
        let volatile = me.log != me.platter || me.promised != me.durable_promise() || me.asking;
        // A crash that loses nothing is no step: it would only use up the budget.
        let loses = volatile || me.answer_to.is_some() || me.token.is_some() || me.copy.is_some() || expected || copied;
        if loses && state.used.crashes < self.bounds.crashes {
            steps.push(Step::Crash { slot });
        }
        if !me.wiped && state.used.wipes < self.bounds.wipes {
            steps.push(Step::Wipe { slot });
        }
    }
}

/// Adds a step unless it is there from `before` on.
fn push_once(steps: &mut Vec<Step>, before: usize, step: Step) {
    if !steps[before..].contains(&step) {
        steps.push(step);
    }
}

// What it does.
impl Protocol {
    /// Takes the steps that need no decision, if they are merged with those before them.
    fn settle(&self, state: &mut State) {
        let mut steps = Vec::new();
        loop {
            for slot in 0..self.slots() {
                if state.replicas[slot].promised > state.replicas[slot].vote {
                    steps.push(Step::SyncVote { slot });
                }
                self.commit_steps(state, slot, &mut steps);
            }
            let Some(step) = steps.pop() else { return };
            self.apply(state, step);
            steps.clear();
        }
    }

    fn apply(&self, state: &mut State, step: Step) {
        match step {
            Step::Order { slot, kind } => order(state, slot, kind),
            Step::Append { slot, log } => state.replicas[slot].log = log,
            Step::Install { slot, log, .. } => self.install(state, slot, log),
            Step::Sync { slot } => self.sync(state, slot),
            Step::SyncVote { slot } => self.sync_vote(state, slot),
            Step::Ask { slot, epoch } => {
                state.used.asks += 1;
                let me = &mut state.replicas[slot];
                me.promise(epoch);
                me.asking = true;
            }
            Step::Promise { slot, epoch } => {
                let boot = state.round(epoch).and_then(|round| round.asked);
                let me = &mut state.replicas[slot];
                me.promise(epoch);
                me.answer_to = boot;
                if self.has(Mistake::PromiseBeforeSync) {
                    self.answer(state, slot);
                }
            }
            Step::Choose { slot, chosen } => choose(state, slot, chosen),
            Step::Start { slot, chosen } => start(state, slot, chosen),
            Step::Pass { slot, to } => pass(state, slot, to),
            Step::Take { token } => take(state, token),
            Step::Resend { slot } => resend(state, slot),
            Step::TakeBack { slot } => {
                let me = &mut state.replicas[slot];
                me.token = me.copy.take().map(|copy| Holding { hop: copy.hop, base: copy.base, by_resend: false });
                state.check_tokens();
            }
            Step::Count { slot, committed } => {
                let log = state.replicas[slot].log.prefix(committed);
                state.check_counted(self, slot, log);
                let me = &mut state.replicas[slot];
                me.committed = committed;
                let epoch = me.promised;
                let round = state.round_mut(epoch);
                round.committed = round.committed.max(committed);
            }
            Step::Learn { slot, committed, .. } => {
                let me = &mut state.replicas[slot];
                me.committed = committed;
                let log = me.log.prefix(committed);
                state.note_committed(log);
            }
            Step::Crash { slot } => {
                state.used.crashes += 1;
                state.replicas[slot].restart();
            }
            Step::Wipe { slot } => self.wipe(state, slot),
        }
    }

    fn install(&self, state: &mut State, slot: Slot, chosen: Log) {
        let epoch = chosen.last_epoch();
        let by_seq = self.has(Mistake::AppendBySeq);
        let mine = state.replicas[slot].log;
        let keep = if by_seq { mine.len().min(chosen.len() - 1) } else { kept(mine, chosen) };
        state.check_truncated(slot, keep, chosen);
        let me = &mut state.replicas[slot];
        me.promise(epoch);
        me.answer_to = None;
        me.vote = epoch;
        if !self.has(Mistake::InstallWithoutCut) {
            me.cut = epoch;
        }
        me.log = mine.prefix(keep);
        if !self.bounds.installs_in_parts {
            for seq in keep + 1..=chosen.len() {
                me.log = chosen.get(seq).map_or(me.log, |entry| me.log.push(entry));
            }
        }
    }

    fn sync(&self, state: &mut State, slot: Slot) {
        state.check_synced(slot);
        let me = &mut state.replicas[slot];
        me.platter = me.log;
        let half = self.has(Mistake::AcknowledgeHalfInstall) && me.installing();
        let epoch = if me.installed() || half {
            me.promised
        } else if self.has(Mistake::StaleSyncAcknowledges) {
            me.log.last_epoch()
        } else {
            return;
        };
        if me.wiped && !self.has(Mistake::EmptyDiskVotes) {
            return;
        }
        me.answered = me.answered.max(epoch);
        let log = me.log;
        state.round_mut(epoch).acks[slot] = log;
    }

    fn sync_vote(&self, state: &mut State, slot: Slot) {
        let me = &mut state.replicas[slot];
        me.vote = me.promised;
        if me.asking {
            me.answered = me.answered.max(me.promised);
            let (epoch, boot) = (me.promised, me.boot);
            state.round_mut(epoch).asked = Some(boot);
        } else if me.answer_to.is_some() {
            self.answer(state, slot);
        }
    }

    /// The answer to a question: only the process that asked can make use of it.
    fn answer(&self, state: &mut State, slot: Slot) {
        let me = &mut state.replicas[slot];
        let epoch = me.promised;
        me.answered = me.answered.max(epoch);
        let log = if self.has(Mistake::PromiseTellsSyncedOnly) { me.platter } else { me.log };
        let Some(boot) = me.answer_to.take() else { return };
        let asker = &state.replicas[epoch.coordinator()];
        if asker.asking && asker.promised == epoch && asker.boot == boot {
            state.round_mut(epoch).promises[slot] = Some(log);
        }
    }

    fn wipe(&self, state: &mut State, slot: Slot) {
        state.used.wipes += 1;
        let boot = state.replicas[slot].boot + 1;
        state.replicas[slot] = Replica { boot, wiped: true, ..Replica::default() };
    }
}

/// The prefix of `mine` that an install of `chosen` keeps: up to the smaller of the two last seqs of the highest epoch
/// that both have. It looks at no entry, only at where epochs end.
fn kept(mine: Log, chosen: Log) -> u8 {
    let in_both = mine.entries().map(Entry::epoch).filter(|&epoch| chosen.last_seq_of(epoch) > 0);
    in_both.max().map_or(0, |epoch| mine.last_seq_of(epoch).min(chosen.last_seq_of(epoch)))
}

fn order(state: &mut State, slot: Slot, kind: Kind) {
    let me = &mut state.replicas[slot];
    let log = me.log.push(Entry::new(me.promised, kind));
    me.log = log;
    if let Some(token) = &mut me.token {
        token.base = log;
    }
    if matches!(kind, Kind::Write(_)) {
        state.used.writes += 1;
    }
    state.check_ordered(log);
    state.send_data(log);
}

fn choose(state: &mut State, slot: Slot, chosen: Log) {
    state.check_chosen(slot, chosen);
    let keep = kept(state.replicas[slot].log, chosen);
    state.check_truncated(slot, keep, chosen);
    let me = &mut state.replicas[slot];
    me.cut = me.promised;
    me.log = me.log.prefix(keep);
    me.choice = Some(chosen);
}

fn start(state: &mut State, slot: Slot, chosen: Log) {
    choose(state, slot, chosen);
    let me = &mut state.replicas[slot];
    let log = chosen.push(Entry::new(me.promised, Kind::NewEpoch));
    me.asking = false;
    me.choice = None;
    me.log = log;
    me.token = Some(Holding { hop: 0, base: log, by_resend: false });
    state.check_tokens();
    state.check_ordered(log);
    state.send_data(log);
}

fn pass(state: &mut State, slot: Slot, to: Slot) {
    let boot = state.replicas[to].boot;
    let me = &mut state.replicas[slot];
    let Some(token) = me.token.take() else { return };
    let (hop, base) = (token.hop + 1, token.base);
    me.copy = Some(Copied { hop, base, to, boot });
    let epoch = me.promised;
    state.used.passes += 1;
    state.send_token(Token { epoch, hop, base, to, boot, resent: false });
}

fn take(state: &mut State, token: Token) {
    state.tokens.retain(|sent| *sent != token);
    let me = &mut state.replicas[token.to];
    me.received = token.hop;
    me.token = Some(Holding { hop: token.hop, base: token.base, by_resend: token.resent });
    state.check_tokens();
}

fn resend(state: &mut State, slot: Slot) {
    let me = &state.replicas[slot];
    let Some(Copied { hop, base, to, .. }) = me.copy else { return };
    let token = Token { epoch: me.promised, hop, base, to, boot: state.replicas[to].boot, resent: true };
    state.used.resends += 1;
    state.send_token(token);
}
