//! Two scorers to compare with: the fixed table of DESIGN section 5, and a likelihood ratio after Freeman et al. (NDSS 2016).

use std::collections::{HashMap, HashSet, VecDeque};

use super::stream::Request;

/// Points of the fixed table: no second factor 3, new device 2, new country or impossible speed 3, VPN 1,
/// unusual hour 2, more than twenty requests a minute 2; capped at 10.
pub(crate) fn fixed(requests: &[Request]) -> Vec<f64> {
    let mut past: HashMap<&str, Past> = HashMap::new();
    requests.iter().map(|request| past.entry(&request.user).or_default().points(request)).collect()
}

#[derive(Default)]
struct Past {
    devices: HashMap<Option<String>, String>,
    countries: HashMap<usize, String>,
    hours: HashSet<u8>,
    recent: VecDeque<f64>,
    last: Option<(f64, f64, f64)>,
    seen: usize,
}

impl Past {
    fn points(&mut self, request: &Request) -> f64 {
        let town = request.net.town;
        let fresh = |first: Option<&String>| first.is_none_or(|session| *session == request.session);
        let known = self.seen > 0;
        let mut points: f64 = if request.strong { 0.0 } else { 3.0 };
        if request.gear.id.is_none() || known && fresh(self.devices.get(&request.gear.id)) {
            points += 2.0;
        }
        if known && (fresh(self.countries.get(&town.country)) || self.too_fast(request)) {
            points += 3.0;
        }
        points += if request.net.anonymous { 1.0 } else { 0.0 };
        let hour = (request.at / 3600.0) as u64 as u8 % 24;
        if self.seen >= 20 && ![23, 0, 1].iter().any(|near| self.hours.contains(&((hour + near) % 24))) {
            points += 2.0;
        }
        self.recent.push_back(request.at);
        self.recent.retain(|at| *at >= request.at - 60.0);
        points += if self.recent.len() > 20 { 2.0 } else { 0.0 };
        self.devices.entry(request.gear.id.clone()).or_insert_with(|| request.session.clone());
        self.countries.entry(town.country).or_insert_with(|| request.session.clone());
        self.hours.insert(hour);
        self.last = Some((request.at, town.latitude, town.longitude));
        self.seen += 1;
        points.min(10.0)
    }

    fn too_fast(&self, request: &Request) -> bool {
        let Some((at, latitude, longitude)) = self.last else { return false };
        let town = request.net.town;
        let (north, east) = (town.latitude - latitude, (town.longitude - longitude) * latitude.to_radians().cos());
        let km = 111.0 * north.hypot(east);
        km > 100.0 && km / ((request.at - at) / 3600.0).max(1e-3) > 900.0
    }
}

/// ln p(x)/p(x|user) over address and software, with the published weights; an unseen value counts a quarter.
pub(crate) fn freeman(requests: &[Request]) -> Vec<f64> {
    let mut everyone: HashMap<(usize, String), f64> = HashMap::new();
    let mut own: HashMap<(String, usize, String), f64> = HashMap::new();
    let mut counts: HashMap<String, f64> = HashMap::new();
    let mut held: HashMap<(String, String, String), f64> = HashMap::new();
    let mut total = 0.0;
    let mut scores = Vec::with_capacity(requests.len());
    for request in requests {
        let (user, address) = (request.user.clone(), request.net.address.to_string());
        let key = (request.session.clone(), address.clone(), request.gear.agent.clone());
        if let Some(score) = held.get(&key) {
            scores.push(*score);
            continue;
        }
        let software = request.gear.agent.rsplit(' ').next().unwrap_or_default().to_owned();
        let values = [
            (0, 0.6, address),
            (1, 0.3, request.net.asn.to_string()),
            (2, 0.1, request.net.town.code()),
            (3, 0.7, request.gear.agent.clone()),
            (4, 0.3, software),
        ];
        let mine = counts.get(&user).copied().unwrap_or(0.0);
        let part = |range: std::ops::Range<usize>| {
            let (mut all, mut here) = (0.0, 0.0);
            for (feature, weight, value) in &values[range] {
                all +=
                    weight * (everyone.get(&(*feature, value.clone())).copied().unwrap_or(0.0) + 1.0) / (total + 100.0);
                here +=
                    weight * own.get(&(user.clone(), *feature, value.clone())).copied().unwrap_or(0.0) / mine.max(1.0);
            }
            f64::ln(all) - f64::ln(if here == 0.0 { all / 4.0 } else { here })
        };
        let score = if mine == 0.0 { -20.0 } else { part(0..3) + part(3..5) - (mine / total).ln() };
        for (feature, _, value) in &values {
            *everyone.entry((*feature, value.clone())).or_default() += 1.0;
            *own.entry((user.clone(), *feature, value.clone())).or_default() += 1.0;
        }
        *counts.entry(user).or_default() += 1.0;
        total += 1.0;
        held.insert(key, score);
        scores.push(score);
    }
    scores
}
