import GatewayCore

/// What a commit may cost and how long it may wait.
package struct CommitPlan: Hashable, Sendable {
    /// The longest that a QoS 1 publisher waits for company, and that a message waits to be elided.
    package var windowMilliseconds: UInt64
    /// What may be committed at once, without waiting for company: so many commits a second in the long run, at
    /// least 1, and after a quiet time `burst` in a row.
    package var commitsPerSecond: UInt64
    package var burst: UInt64
    /// A QoS 2 exchange waits no longer than this (rules A2 to A7), a connection or a subscription than that (rules
    /// A9 and A10); and neither longer than the window.
    package var handshakeMilliseconds: UInt64 = 100
    package var controlMilliseconds: UInt64 = 20
    /// Who has time waits so long for somebody else's commit, and no shorter than the window.
    package var relaxedMilliseconds: UInt64 = 1000
    /// So many bytes fill their pages well enough to go without waiting for anything.
    package var bytesMax = 64 << 10
    /// Bytes in memory, those that may yet be elided included, above which all are written.
    package var memoryBytesMax = 1 << 20

    package init(windowMilliseconds: UInt64, commitsPerSecond: UInt64, burst: UInt64) {
        precondition(commitsPerSecond > 0 && burst > 0, "something is committed some time")
        self.windowMilliseconds = windowMilliseconds
        self.commitsPerSecond = commitsPerSecond
        self.burst = burst
    }

    /// What can never be elided is acknowledged soon, at what that costs the flash.
    package static let latency = CommitPlan(windowMilliseconds: 20, commitsPerSecond: 50, burst: 50)
    /// The default.
    package static let balanced = CommitPlan(windowMilliseconds: 250, commitsPerSecond: 4, burst: 40)
    /// For flash that must last: about one commit a second, however much comes.
    package static let flashSaver = CommitPlan(windowMilliseconds: 1000, commitsPerSecond: 1, burst: 10)
}

/// When the Records that wait are committed: prompt when it is quiet, batched when it is busy.
///
/// A commit costs the flash a page and more, however little is in it, so their number counts. What somebody
/// waits for draws on a bucket of tokens: with one left it is committed at once, without one it waits for the next,
/// and no longer than its class allows. A message that everyone it is owed to may have in a moment lingers instead,
/// for the window, in the hope of never being written (rules E4 and E6). For the rest nobody waits.
///
/// It has no clock and knows of Records only since when there are some of each class.
package struct CommitPolicy {
    package let plan: CommitPlan
    private let lazyDelayMilliseconds: UInt64
    /// Stretches the window and the time between tokens, for flash that must be spared more than planned: 1 as
    /// planned.
    package var widening = 1 {
        willSet { precondition(newValue >= 1, "a window is never narrowed") }
    }

    /// In millionths; below 0 after commits that could wait no longer.
    private var bucket: Int64
    private var filledAt: Instant
    private static let token: Int64 = 1_000_000

    private var yield = ElisionYield()

    /// Since when Records of each class wait; nil where none do.
    package struct Demand: Equatable {
        package var lazy: Instant?
        /// They linger: nothing is lost by waiting, and a commit may be saved.
        package var lingering: Instant?
        package var message: Instant?
        package var relaxed: Instant?
        package var handshake: Instant?
        package var control: Instant?
        /// Of all but those that linger.
        package var bytes = 0
        package var memoryBytes = 0
        /// Whether any come before the first that lingers.
        package var beginsBeforeLingering = false

        package init() {}

        fileprivate var prompt: Instant? {
            [message, handshake, control].reduce(nil) { earlier($0, $1) }
        }
    }

    package enum Due: Equatable {
        case nothing
        /// - lingeredInVain: because something has lingered for the whole window.
        case everything(lingeredInVain: Bool)
        /// What comes before the first that lingers: nobody waits for it, so nothing that may be elided is
        /// written for its sake.
        case beforeLingering
    }

    package init(_ plan: CommitPlan, lazyDelayMilliseconds: UInt64, at now: Instant) {
        self.plan = plan
        self.lazyDelayMilliseconds = lazyDelayMilliseconds
        bucket = Int64(clamping: plan.burst) * Self.token
        filledAt = now
    }

    // MARK: Deciding

    /// What is to be committed now.
    ///
    /// - Complexity: O(1)
    package func due(_ demand: Demand, at now: Instant) -> Due {
        if let at = promptDeadline(demand), at <= now { return .everything(lingeredInVain: false) }
        if let at = lingeringDeadline(demand), at <= now { return .everything(lingeredInVain: true) }
        if let at = lazyDeadline(demand), at <= now {
            return demand.lingering == nil ? .everything(lingeredInVain: false) : .beforeLingering
        }
        return .nothing
    }

    /// The first moment at which something is due, if nothing changes until then; nil when nothing waits.
    package func nextDeadline(_ demand: Demand) -> Instant? {
        earlier(
            earlier(promptDeadline(demand), lingeringDeadline(demand)), lazyDeadline(demand))
    }

    private var window: UInt64 { plan.windowMilliseconds * UInt64(widening) }

    private func promptDeadline(_ demand: Demand) -> Instant? {
        if demand.bytes >= plan.bytesMax || demand.memoryBytes >= plan.memoryBytesMax {
            return Instant(milliseconds: 0)
        }
        let relaxed = demand.relaxed?.advanced(byMilliseconds: max(window, plan.relaxedMilliseconds))
        guard let since = demand.prompt else { return relaxed }
        let withToken = max(since, nextToken)
        let latest = [
            demand.message?.advanced(byMilliseconds: window),
            demand.handshake?.advanced(byMilliseconds: min(window, plan.handshakeMilliseconds)),
            demand.control?.advanced(byMilliseconds: min(window, plan.controlMilliseconds)),
        ].reduce(nil) { earlier($0, $1) }
        return earlier(earlier(withToken, latest), relaxed)
    }

    private func lingeringDeadline(_ demand: Demand) -> Instant? {
        demand.lingering?.advanced(byMilliseconds: window)
    }

    private func lazyDeadline(_ demand: Demand) -> Instant? {
        guard demand.lingering == nil || demand.beginsBeforeLingering else { return nil }
        return demand.lazy?.advanced(byMilliseconds: lazyDelayMilliseconds)
    }

    // MARK: Tokens

    /// Of a token, a millisecond.
    private var refill: Int64 {
        max(1, Int64(clamping: plan.commitsPerSecond) * Self.token / 1000 / Int64(widening))
    }

    /// When there is a token.
    private var nextToken: Instant {
        guard bucket < Self.token else { return filledAt }
        return filledAt.advanced(byMilliseconds: UInt64((Self.token - bucket + refill - 1) / refill))
    }

    /// Tells of a commit for whose Records `demand` stood.
    ///
    /// One for which somebody waits takes a token. Where there is none it takes the next one beforehand, lest
    /// the deadlines come on top of the tokens. One that is full needs none, and neither does a lazy one.
    package mutating func committed(_ demand: Demand, at now: Instant) {
        fill(at: now)
        let isFull = demand.bytes >= plan.bytesMax || demand.memoryBytes >= plan.memoryBytesMax
        if !isFull, demand.prompt != nil || demand.relaxed != nil || demand.lingering != nil {
            bucket = max(bucket - Self.token, -Self.token)
        }
    }

    private mutating func fill(at now: Instant) {
        let elapsed = Int64(clamping: now.milliseconds(since: filledAt))
        let (gain, overflow) = elapsed.multipliedReportingOverflow(by: refill)
        let full = Int64(clamping: plan.burst) * Self.token
        bucket = overflow ? full : min(full, bucket + min(gain, full - bucket))
        filledAt = max(filledAt, now)
    }

    /// Widens or narrows the window from now on.
    package mutating func widen(_ factor: Int, at now: Instant) {
        // What has dripped so far did so at the old rate.
        fill(at: now)
        widening = factor
    }

    // MARK: Elision

    /// Whether messages that might be elided should linger for it (rule E6).
    package func lingers(at now: Instant) -> Bool { plan.windowMilliseconds > 0 && !yield.isResting(at: now) }

    /// `count` messages that lingered were elided, or were written because the window was over.
    package mutating func lingered(_ count: Int, wereElided: Bool, at now: Instant) {
        yield.note(count, wereElided: wereElided, at: now)
    }
}

/// Whether lingering pays (rule E6): when less than half of the messages that lingered in the last minute or so were
/// elided, receivers are too far away, and lingering only delays acknowledgements. Then it rests for a while and is
/// tried again: for a second first, because one stall of a link that is mostly quick looks the same, and twice as long
/// each time it is found so again, up to a minute. Of what comes to receivers that are far for good, next to nothing
/// lingers then.
struct ElisionYield {
    private var elided = 0
    private var written = 0
    private var elidedBefore = 0
    private var writtenBefore = 0
    private var halfSince = Instant(milliseconds: 0)
    private var restsUntil: Instant?
    private var nextRestMilliseconds = firstRestMilliseconds

    /// Below this many nothing is concluded.
    private static let sample = 8
    private static let halfMilliseconds: UInt64 = 30_000
    static let firstRestMilliseconds: UInt64 = 1_000
    static let longestRestMilliseconds: UInt64 = 60_000

    func isResting(at now: Instant) -> Bool { restsUntil.map { now < $0 } ?? false }

    mutating func note(_ count: Int, wereElided: Bool, at now: Instant) {
        guard !isResting(at: now) else { return }
        roll(at: now)
        if wereElided { elided += count } else { written += count }
        let (elided, written) = (elided + elidedBefore, written + writtenBefore)
        guard elided + written >= Self.sample else { return }
        guard elided < written else {
            nextRestMilliseconds = Self.firstRestMilliseconds
            return
        }
        let rest = nextRestMilliseconds
        self = ElisionYield()
        restsUntil = now.advanced(byMilliseconds: rest)
        nextRestMilliseconds = min(2 * rest, Self.longestRestMilliseconds)
    }

    /// Two halves of a minute, of which the older is forgotten at once.
    private mutating func roll(at now: Instant) {
        let age = now.milliseconds(since: halfSince)
        guard age >= Self.halfMilliseconds else { return }
        let isNext = age < 2 * Self.halfMilliseconds
        (elidedBefore, writtenBefore) = isNext ? (elided, written) : (0, 0)
        (elided, written) = (0, 0)
        halfSince = now
    }
}

/// The earlier of two moments, where there are two.
private func earlier(_ a: Instant?, _ b: Instant?) -> Instant? {
    guard let a, let b else { return a ?? b }
    return min(a, b)
}
