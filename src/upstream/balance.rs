//! An upstream as one worker sees it: its endpoints, and room for requests.
//!
//! Owns: reuse before connecting. One address costs no more than its pool; where there are several, or a name that
//! has to be resolved, [`Many`] chooses.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;
use http::HeaderValue;
use http::uri::Authority;
use hyper::body::Body;
use tokio::time::Instant;

use super::budget::Budget;
use super::endpoint::{Endpoint, choose};
use super::health::{Board, Health};
use super::many::Many;
use super::room::{Entrance, Room};
use super::{Connector, DialError, Lease, Pool, UpstreamOptions};

/// What all workers share of one upstream.
#[derive(Debug, Clone)]
pub struct Shared {
    /// How many requests may be under way.
    pub room: Arc<Room>,
    /// What is known of its addresses.
    pub board: Arc<Board>,
}

impl Shared {
    /// For so many workers.
    pub fn new(options: &UpstreamOptions, workers: usize) -> Self {
        Self { room: Room::new(options.room, workers), board: Board::new(options.ejection) }
    }
}

/// One upstream. Not shared between threads.
#[derive(Debug)]
pub struct Upstream<B: Body + 'static> {
    ways: Ways<B>,
    entrance: Rc<Entrance>,
    budget: Budget,
}

#[derive(Debug)]
enum Ways<B: Body + 'static> {
    /// One origin at one address, or whose name each connection resolves.
    One(Rc<Pool<B>>, Option<Arc<Health>>),
    Many(Rc<Many<B>>),
}

/// A connection for one request, and where it leads.
#[derive(Debug)]
pub struct Reached<B: Body + 'static> {
    /// The connection.
    pub lease: Lease<B>,
    /// `None`: there is only one.
    pub endpoint: Option<Rc<Endpoint<B>>>,
}

/// What is there at once.
#[derive(Debug)]
pub enum Found<B: Body + 'static> {
    /// A connection that stands.
    Reached(Reached<B>),
    /// None: one must be opened, there if anywhere.
    Nothing(Option<Rc<Endpoint<B>>>),
}

impl<B> Upstream<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// An upstream of these origins, one connector each.
    pub fn new(connectors: Vec<Connector>, options: &UpstreamOptions, shared: &Shared) -> Rc<Self> {
        let limits = options.pool;
        let entrance = Entrance::new(Arc::clone(&shared.room));
        let board = Arc::clone(&shared.board);
        let fixed: Vec<_> = connectors.iter().map(Connector::fixed_address).collect();
        let ways = match (connectors.as_slice(), fixed.as_slice()) {
            ([connector], [Some(address)]) if limits.keep_warm == 0 => {
                let health = board.health(0, address);
                Ways::One(Pool::with_limits(connector.at(address), limits), Some(health))
            }
            _ => Ways::Many(Rc::new(Many::new(connectors, fixed, board, limits))),
        };
        Rc::new(Self { ways, entrance, budget: Budget::default() })
    }

    /// An upstream of one origin whose name each connection resolves.
    pub fn of_name(connector: Connector, room: Arc<Room>) -> Rc<Self> {
        let pool = Pool::new(connector);
        Rc::new(Self {
            ways: Ways::One(pool, None),
            entrance: Entrance::new(room),
            budget: Budget::default(),
        })
    }

    /// What is common to the ways to all its origins.
    pub fn connector(&self) -> &Connector {
        match &self.ways {
            Ways::One(pool, _) => pool.connector(),
            Ways::Many(many) => &many.origins[0].connector,
        }
    }

    /// Whether requests go to several origins.
    #[inline]
    pub fn has_origins(&self) -> bool {
        matches!(&self.ways, Ways::Many(many) if many.origins.len() > 1)
    }

    /// How many origins there are.
    pub fn origins(&self) -> usize {
        match &self.ways {
            Ways::Many(many) => many.origins.len().max(1),
            _ => 1,
        }
    }

    /// The Host field and the authority of an endpoint's origin.
    pub fn names_of(&self, endpoint: &Endpoint<B>) -> Option<(&HeaderValue, &Authority)> {
        let Ways::Many(many) = &self.ways else { return None };
        let origin = many.origins.get(endpoint.origin)?;
        Some((&origin.host, &origin.authority))
    }

    /// Whether requests share connections, so that the upstream can refuse one of them alone.
    pub fn is_shared(&self) -> bool {
        match &self.ways {
            Ways::One(pool, _) => pool.is_shared(),
            Ways::Many(many) => many.is_shared(),
        }
    }

    /// Room for requests.
    #[inline]
    pub fn entrance(&self) -> &Rc<Entrance> {
        &self.entrance
    }

    /// Repeated attempts.
    #[inline]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// A connection that was used before and still stands, where the next request should go.
    #[inline]
    pub fn find(&self, now: Instant) -> Found<B> {
        match &self.ways {
            Ways::One(pool, _) => match pool.reuse(now) {
                Some(lease) => Found::Reached(Reached { lease, endpoint: None }),
                None => Found::Nothing(None),
            },
            Ways::Many(many) => {
                let Some(endpoint) = choose(&many.origins, || many.board.millis(now)) else {
                    return Found::Nothing(None);
                };
                match endpoint.pool.reuse(now) {
                    Some(lease) => Found::Reached(Reached { lease, endpoint: Some(endpoint) }),
                    None => Found::Nothing(Some(endpoint)),
                }
            }
        }
    }

    /// A new connection: to `first` if it can be reached.
    pub async fn connect(&self, first: Option<Rc<Endpoint<B>>>) -> Result<Reached<B>, DialError> {
        match &self.ways {
            Ways::One(pool, _) => pool.connect().await.map(|lease| Reached { lease, endpoint: None }),
            // Boxed: a request on a kept connection does not carry it.
            Ways::Many(many) => Box::pin(many.connect(first, || self.budget.spend())).await,
        }
    }

    /// Makes sure that there is a connection at hand, as far as that can be told without a request.
    pub async fn warm(&self, now: Instant) -> Result<(), DialError> {
        let Reached { mut lease, .. } = match self.find(now) {
            Found::Reached(reached) => reached,
            Found::Nothing(there) => self.connect(there).await?,
        };
        // Not before it was moved on once is it ready for a request.
        lease.drive(&mut Context::from_waker(Waker::noop()));
        lease.release(Instant::now());
        Ok(())
    }

    /// The upstream answered, well or not.
    #[inline]
    pub fn answered(&self, endpoint: Option<&Rc<Endpoint<B>>>, well: bool, now: Instant) {
        if let (Ways::Many(many), Some(endpoint)) = (&self.ways, endpoint) {
            if well {
                many.board.succeeded(&endpoint.health, now);
            } else {
                many.board.failed(&endpoint.health, now);
            }
        }
    }

    /// Idle connections now.
    pub fn idle(&self) -> usize {
        self.sum(Pool::idle)
    }

    /// Requests on connections now.
    pub fn active(&self) -> usize {
        self.sum(Pool::active)
    }

    fn sum(&self, of: impl Fn(&Pool<B>) -> usize) -> usize {
        match &self.ways {
            Ways::One(pool, _) => of(pool),
            Ways::Many(many) => many.sum(of),
        }
    }

    /// Each second: closes what is idle for too long, resolves again, keeps warm, gives back room.
    pub fn sweep(&self, now: Instant) {
        self.entrance.sweep();
        self.budget.sweep();
        match &self.ways {
            Ways::One(pool, _) => pool.sweep(now),
            Ways::Many(many) => many.sweep(now),
        }
    }

    /// Where active checks go: each address with a way there.
    pub async fn to_check(&self) -> Vec<(Connector, Arc<Health>)> {
        match &self.ways {
            Ways::One(pool, health) => {
                health.iter().map(|health| (pool.connector().clone(), Arc::clone(health))).collect()
            }
            Ways::Many(many) => {
                many.resolve(Instant::now()).await;
                let way = |endpoint: &Rc<Endpoint<B>>| {
                    (endpoint.pool.connector().clone(), Arc::clone(&endpoint.health))
                };
                let all = many.origins.iter().map(|origin| origin.endpoints.borrow());
                all.flat_map(|endpoints| endpoints.iter().map(way).collect::<Vec<_>>()).collect()
            }
        }
    }
}
