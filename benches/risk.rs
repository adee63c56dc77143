//! What one request costs the statistical model: time with 100,000 profiles, bytes per profile, allocations.
//!
//! `cargo bench --bench risk`. Percentiles per request, so no averaging framework; the clock's own cost is measured
//! and said, not subtracted.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use countersign::risk::statistical::{
    Action, Agent, Binding, Capacity, Engine, Event, Key, Model, Outcome, Profile,
    event::{Device, Place, Proof, Strength, roles_key},
};

const USERS: u64 = 100_000;
const REQUESTS: usize = 1_000_000;
const MONDAY: f64 = 1_768_204_800.0;
const AGENT: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";

/// Counts what is asked of the system's allocator.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "to count allocations one must be the allocator; it only passes them on")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: passed on as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: passed on as it came.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn main() {
    let mut engine = Engine::new(Model::default(), Capacity { profiles: 200_000, sessions: 400_000 });
    for turn in 0..12 {
        for user in 0..USERS {
            let event = request(user, turn, MONDAY + turn as f64 * 3600.0 + user as f64 * 0.02);
            let assessment = engine.assess(&event);
            engine.learn(&event, &assessment, Outcome::Allowed);
        }
    }
    println!(
        "profiles {}, {} bytes each; a session {} bytes",
        engine.held().0,
        size_of::<Profile>(),
        size_of::<Binding>()
    );
    println!("shared {} bytes", engine.globals().bytes());
    report("the clock alone", REQUESTS, |_| {});
    warm(&mut engine);
    cold(&mut engine);
    parse();
}

/// Requests of running sessions, users at random: what nearly every request is.
fn warm(engine: &mut Engine) {
    let events: Vec<Event> = (0..REQUESTS).map(|n| running(n as u64)).collect();
    report("score, session known", REQUESTS, |n| {
        black_box(engine.assess(&events[n]));
    });
    report("score and learn, session known", REQUESTS, |n| {
        let assessment = engine.assess(&events[n]);
        black_box(engine.learn(&events[n], &assessment, Outcome::Allowed));
    });
}

/// First requests of new sessions: every term of identity is computed.
fn cold(engine: &mut Engine) {
    let fresh = |n: usize| {
        let event = running(n as u64);
        Event { session: event.subject.within("new").within(&n.to_string()), ..event }
    };
    let events: Vec<Event> = (0..200_000).map(fresh).collect();
    report("score and learn, new session", events.len(), |n| {
        let assessment = engine.assess(&events[n]);
        black_box(engine.learn(&events[n], &assessment, Outcome::Allowed));
    });
}

/// What the caller does once per request or token.
fn parse() {
    report("user agent", 100_000, |_| {
        black_box(Agent::parse(black_box(AGENT)));
    });
    report("method and path", 100_000, |_| {
        black_box(Action::of("GET", black_box("/api/v1/orders/48213/items/9b2e1c44-1111-4222-8333-aaaaaaaaaaaa")));
    });
}

fn running(n: u64) -> Event {
    let user = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    request(user % USERS, 11, MONDAY + 12.0 * 3600.0 + n as f64 * 0.01)
}

fn request(user: u64, turn: u64, now: f64) -> Event {
    let subject = Key::of(&user.to_string());
    let octet = |shift: u64| (user >> shift) as u8;
    Event {
        now,
        subject,
        session: subject.within(&(turn / 4).to_string()),
        ends: None,
        strength: Strength::Strong,
        address: Some(IpAddr::V4(Ipv4Addr::new(80, octet(8), octet(0), 7))),
        place: Some(Place { country: *b"NO", position: Some((59.9, 10.7)), radius_km: 10.0 }),
        asn: Some(2119 + (user % 5) as u32),
        anonymous: false,
        device: Device { id: Some(subject), proof: Proof::Named, compliant: Some(true), ..Device::default() },
        agent: Agent::parse(AGENT),
        action: Action::of(
            "GET",
            &format!("/team{}/thing{}", user % 8, (b'a' + ((turn * 7 + user) % 9) as u8) as char),
        ),
        roles: roles_key([["a", "b", "c", "d", "e", "f", "g", "h"][(user % 8) as usize]]),
    }
}

/// Runs `work` and prints its percentiles in nanoseconds, and what it allocated.
fn report(name: &str, count: usize, mut work: impl FnMut(usize)) {
    let mut took = Vec::with_capacity(count);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for n in 0..count {
        let start = Instant::now();
        work(n);
        took.push(start.elapsed().as_nanos() as u64);
    }
    let allocated = ALLOCATIONS.load(Ordering::Relaxed) - before;
    took.sort_unstable();
    let at = |share: f64| took[((count - 1) as f64 * share) as usize];
    println!(
        "{name:<32} p50 {:>6} ns  p99 {:>6} ns  p99.9 {:>6} ns  allocations {allocated}",
        at(0.5),
        at(0.99),
        at(0.999)
    );
}
