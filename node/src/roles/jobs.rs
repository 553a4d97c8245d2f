//! The table of requests that were passed on: bounded, each with a deadline, found by a number that is never reused soon.

use std::collections::BTreeMap;

use pygmy_proto::limits::JOBS_MAX;

use crate::machine::ms;

/// Deadlines are kept in buckets of this width: a request is answered as late at most this much after its deadline,
/// and a million requests with the same time-out need a hundred buckets.
const BUCKET_NS: u64 = ms(32);

/// A key into [`Jobs`]: the slot below, its generation above, so that a late answer never finds another job.
pub type JobKey = u64;

#[derive(Debug)]
struct Slot<J> {
    generation: u32,
    job: Option<J>,
}

/// A bounded table of jobs with deadlines.
#[derive(Debug)]
pub struct Jobs<J> {
    slots: Vec<Slot<J>>,
    free: Vec<u32>,
    buckets: BTreeMap<u64, Vec<JobKey>>,
    /// Keys in `buckets`, those of jobs that are done included.
    queued: usize,
}

impl<J> Default for Jobs<J> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), buckets: BTreeMap::new(), queued: 0 }
    }
}

/// Keys of done jobs that may lie in the buckets beside as many as there are jobs.
const STALE_KEYS_MAX: usize = 4_096;

impl<J> Jobs<J> {
    /// Jobs in the table.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Whether there is room for one more.
    pub fn has_room(&self) -> bool {
        self.len() < JOBS_MAX
    }

    /// Adds a job, with a deadline if it has one; the caller has asked [`Self::has_room`].
    pub fn insert(&mut self, deadline_ns: Option<u64>, job: J) -> JobKey {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(Slot { generation: 0, job: None });
                (self.slots.len() - 1) as u32
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.job = Some(job);
        let key = u64::from(slot.generation) << 32 | u64::from(index);
        if let Some(deadline_ns) = deadline_ns {
            self.queue(deadline_ns / BUCKET_NS + 1, key);
        }
        key
    }

    fn queue(&mut self, bucket: u64, key: JobKey) {
        self.buckets.entry(bucket).or_default().push(key);
        self.queued += 1;
        // Short jobs with long deadlines leave their keys behind: swept when they outnumber the jobs.
        if self.queued > 2 * self.len() + STALE_KEYS_MAX {
            let slots = &self.slots;
            self.buckets.retain(|_, keys| {
                keys.retain(|key| is_live(slots, *key));
                !keys.is_empty()
            });
            self.queued = self.buckets.values().map(Vec::len).sum();
        }
    }

    /// The job with this key.
    pub fn get(&self, key: JobKey) -> Option<&J> {
        let slot = self.slots.get((key & u64::from(u32::MAX)) as usize)?;
        if u64::from(slot.generation) == key >> 32 { slot.job.as_ref() } else { None }
    }

    /// The job with this key, to be changed.
    pub fn get_mut(&mut self, key: JobKey) -> Option<&mut J> {
        let slot = self.slots.get_mut((key & u64::from(u32::MAX)) as usize)?;
        if u64::from(slot.generation) == key >> 32 { slot.job.as_mut() } else { None }
    }

    /// Takes the job with this key.
    pub fn remove(&mut self, key: JobKey) -> Option<J> {
        let index = (key & u64::from(u32::MAX)) as u32;
        let slot = self.slots.get_mut(index as usize)?;
        if u64::from(slot.generation) != key >> 32 {
            return None;
        }
        let job = slot.job.take()?;
        self.free.push(index);
        if self.free.len() == self.slots.len() {
            // Nothing in flight: no deadline is worth waking up for, and after a peak the memory goes back.
            self.buckets.clear();
            self.queued = 0;
        }
        Some(job)
    }

    /// Gives a job another key: what comes under the old one finds nothing from now on.
    pub fn renew(&mut self, deadline_ns: Option<u64>, key: JobKey) -> Option<JobKey> {
        let job = self.remove(key)?;
        Some(self.insert(deadline_ns, job))
    }

    /// Keys of the jobs for which `wanted` holds, in the order of the table. It looks at every slot: a third of a
    /// millisecond when the table is full, 10 µs for 8,192 jobs, and only when a server or a connection goes. Lists by server
    /// would cost every request something.
    pub fn keys(&self, wanted: impl Fn(&J) -> bool) -> Vec<JobKey> {
        let with_index = self.slots.iter().enumerate();
        with_index
            .filter(|(_, slot)| slot.job.as_ref().is_some_and(&wanted))
            .map(|(index, slot)| u64::from(slot.generation) << 32 | index as u64)
            .collect()
    }

    /// When [`Self::take_late`] must be called next.
    pub fn next_timeout(&self) -> Option<u64> {
        self.buckets.keys().next().map(|bucket| bucket * BUCKET_NS)
    }

    /// Takes every job whose deadline has passed.
    pub fn take_late(&mut self, now_ns: u64) -> Vec<(JobKey, J)> {
        let mut late = Vec::new();
        while let Some(entry) = self.buckets.first_entry() {
            if entry.key() * BUCKET_NS > now_ns {
                break;
            }
            let keys = entry.remove();
            self.queued -= keys.len();
            for key in keys {
                if let Some(job) = self.remove(key) {
                    late.push((key, job));
                }
            }
        }
        late
    }
}

fn is_live<J>(slots: &[Slot<J>], key: JobKey) -> bool {
    slots
        .get((key & u64::from(u32::MAX)) as usize)
        .is_some_and(|slot| u64::from(slot.generation) == key >> 32 && slot.job.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_finds_the_slots_next_job() {
        let mut jobs = Jobs::default();
        let first = jobs.insert(None, 'a');
        assert_eq!(jobs.remove(first), Some('a'));
        let second = jobs.insert(None, 'b');
        assert_eq!(jobs.get_mut(first), None);
        assert_eq!(jobs.remove(first), None);
        assert_eq!(jobs.remove(second), Some('b'));
        assert!(jobs.is_empty());
    }

    #[test]
    fn a_job_is_found_under_its_latest_key_only() {
        let mut jobs = Jobs::default();
        let first = jobs.insert(Some(ms(100)), 'a');
        let second = jobs.renew(Some(ms(100)), first).unwrap();
        assert_eq!(jobs.get_mut(first), None);
        assert_eq!(jobs.renew(None, first), None);
        assert_eq!(jobs.get_mut(second), Some(&mut 'a'));
        let late: Vec<_> = jobs.take_late(ms(200)).into_iter().collect();
        assert_eq!(late, [(second, 'a')], "its deadline stays");
    }

    #[test]
    fn late_jobs_are_taken_once_and_never_early() {
        let mut jobs = Jobs::default();
        jobs.insert(Some(ms(100)), 'a');
        let answered = jobs.insert(Some(ms(100)), 'b');
        jobs.insert(Some(ms(5_000)), 'c');
        jobs.remove(answered);
        assert!(jobs.take_late(ms(100)).is_empty());
        let at = jobs.next_timeout().expect("two jobs wait");
        assert!(at > ms(100) && at <= ms(100) + BUCKET_NS, "{at}");
        let late: Vec<_> = jobs.take_late(at).into_iter().map(|(_, job)| job).collect();
        assert_eq!(late, ['a']);
        assert!(jobs.take_late(at).is_empty());
        assert_eq!(jobs.len(), 1);
    }

    #[test]
    fn an_empty_table_asks_for_no_timer() {
        let mut jobs = Jobs::default();
        let key = jobs.insert(Some(ms(100)), ());
        assert!(jobs.next_timeout().is_some());
        jobs.remove(key);
        assert_eq!(jobs.next_timeout(), None);
    }

    #[test]
    fn short_jobs_with_long_deadlines_leave_a_bounded_heap_of_keys() {
        let mut jobs = Jobs::default();
        let stays = jobs.insert(Some(ms(600_000)), 0);
        for number in 0..100_000_u64 {
            let key = jobs.insert(Some(ms(600_000 + number)), 1);
            jobs.remove(key);
        }
        assert!(jobs.queued <= STALE_KEYS_MAX + 4, "{} keys for one job", jobs.queued);
        let late: Vec<_> = jobs.take_late(ms(1_000_000)).into_iter().map(|(key, _)| key).collect();
        assert_eq!(late, [stays]);
    }
}
