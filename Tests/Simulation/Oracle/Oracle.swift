import GatewayCore
import MQTT

/// Says what a gateway must not do, from nothing but what its peers did and saw: a small model of MQTT and of the
/// promises P1, P2, P3 and P9, apart from the gateway's code.
///
/// It knows every message, when its author sent it and when the gateway said that it has it, and every subscription,
/// with the time in which it was certainly there and the longer one in which it may have been. A message is owed when it
/// was accepted, and the subscription was there all the time in which the gateway may have taken it. It may come when
/// the two times meet at all. What lies between is nobody's fault.
///
/// What it reports at once is in `violations`; what is missing only `finish` can say.
package struct Oracle {
    let rules: OracleRules
    /// What must not be, with who and which message; no more than a few dozen.
    package private(set) var violations: [String] = []
    private(set) var violationCount = 0

    var matching = Matching()
    var messages: [OracleMessage] = []
    private var places: [MessageName: Int] = [:]
    var people: [Person]
    var cloud = CloudView()
    var groups: [Int: GroupView] = [:]
    /// Messages that were published with RETAIN, by topic, in the order of sending.
    var retained: [Int: [Int]] = [:]
    /// Retained messages that a new subscription was certain to bring.
    var expected: [Expectation] = []
    private(set) var powerCuts: [UInt64] = []
    /// When it took no messages, because there was no room for them.
    private var pressures: [(from: UInt64, until: UInt64)] = []
    /// When the gateway last began to run without a break.
    private var runsSince: UInt64 = 0
    /// When the cloud said last that it has no session.
    private var cloudBeganAnewAt: UInt64?
    /// The power failed so soon after that, that nothing may be known of it: the cloud has a session then that looks like
    /// the one before, and a new message under an identifier that was held may be taken for the old one.
    private(set) var cloudMayBeMistaken = false

    /// A client as the oracle sees it.
    struct Person {
        var isRude = false
        var connection = 0
        var connecting: PeerEvent.Connecting?
        var connectingAt: UInt64 = 0
        var connectingWill: Int?
        var session: OracleSession?
        var sessionCount = 0
        /// CONNECT went without CONNACK: the gateway may have begun a Session, or may yet when it arrives late.
        var mayHaveBegun = false
        var isUnanswered = false
        /// SUBSCRIBE and UNSUBSCRIBE that are not answered: when they were sent.
        var askedAt: [TopicFilter: UInt64] = [:]
        var will: WillView?
        var goodbyeWill: Int?
        /// Some Session of it ended, or may have, at this moment.
        var lastEndedAt: UInt64?
    }

    struct WillView {
        var message: Int
        var delaySeconds: UInt32
        /// Counted per client.
        var connection: Int
        var sentAt: UInt64
        var connectedAt: UInt64
        /// Another CONNECT was sent since.
        var isReplaced = false
        var isDiscarded = false
        /// The next CONNECT has found that it must have been published before.
        var isDue = false
    }

    struct CloudView {
        /// Since its session began.
        var copies: [MessageName: OracleSession.Copies] = [:]
        var lastSeen: [UInt64: UInt32] = [:]
        var connection = 0
        /// What it has received, ever, and not lost again without having said that it has it.
        var arrived: Set<MessageName> = []
        var everSeen: Set<MessageName> = []
        /// What it lost, or may have, by itself.
        var lostByItself: Set<MessageName> = []
        var refused: Set<MessageName> = []
    }

    struct GroupView {
        /// Somebody may have been a member from then on.
        var since = UInt64.max
        var seen: Set<MessageName> = []
        var exactlyOnce: [MessageName: Int] = [:]
    }

    struct Expectation {
        var person: Int
        var session: Int
        var message: Int
        var since: UInt64
    }

    package init(_ rules: OracleRules) {
        self.rules = rules
        people = rules.clients.map { Person(isRude: $0.isRude) }
    }

    // MARK: What it is told

    /// The power failed, or the process was killed.
    package mutating func powerFailed(at now: UInt64) {
        powerCuts.append(now)
        if let began = cloudBeganAnewAt, now - began < 3_000_000 { cloudMayBeMistaken = true }
        // Who had said goodbye a moment before may have done so for nothing: nobody had told it that it was heard.
        for i in people.indices {
            guard let will = people[i].goodbyeWill else { continue }
            messages[will].isForbidden = false
            people[i].goodbyeWill = nil
        }
    }

    /// The gateway runs, after a start or after the machine slept.
    package mutating func runs(since now: UInt64) { runsSince = now }

    /// The gateway begins to refuse messages, or takes them again.
    package mutating func presses(_ isPressing: Bool, at now: UInt64) {
        if let last = pressures.last, last.until == .max {
            if !isPressing { pressures[pressures.count - 1].until = now }
        } else if isPressing {
            pressures.append((now, .max))
        }
    }

    /// Whether a copy of it may have been refused without its author hearing of it: what it sends once more is taken
    /// behind what came meanwhile.
    func mayHaveBeenRefused(_ message: OracleMessage) -> Bool {
        message.sends > 1
            && pressures.contains { $0.from <= message.takenBefore && message.firstSent <= $0.until }
    }

    /// Whether the gateway was restarted after `begin`, and has run since for so long without a break.
    func hasRunCalmly(for duration: UInt64, since begin: UInt64, until end: UInt64) -> Bool {
        runsSince <= end && end - runsSince > duration && powerCutCount(since: begin) > 0
            && powerCutCount(since: runsSince) == 0
    }

    /// The gateway has handled all that `peer` said on the connection that ends now. Only then a goodbye is certain to
    /// have been heard; without this call no Will is thought to be discarded for certain.
    package mutating func heardOut(_ peer: Int, at now: UInt64) {
        guard people.indices.contains(peer), let will = people[peer].will, will.isDiscarded,
            will.connection == people[peer].connection
        else { return }
        messages[will.message].isForbidden = true
        people[peer].goodbyeWill = will.message
    }

    /// Everything that was acknowledged before is durable, whoever was told: a goodbye cannot be undone any more.
    package mutating func allIsDurable() {
        for i in people.indices { people[i].goodbyeWill = nil }
    }

    /// - Parameter peer: a client's place, or the number of clients for the cloud.
    package mutating func saw(_ event: PeerEvent, by peer: Int, at now: UInt64) {
        if peer == rules.clients.count, case .connected(sessionPresent: false, _) = event {
            cloudBeganAnewAt = now
        }
        switch event {
        case .publishing(let publishing): published(publishing, by: peer, at: now)
        case .accepted(let name): accepted(name, at: now)
        case .denied(let name, _): if let i = places[name] { messages[i].isDenied = true }
        case .abandoned: break
        case .broken(let words): if !isRude(peer) { report("\(self.name(of: peer)): \(words)") }
        default:
            if peer == rules.clients.count {
                cloudSaw(event, at: now)
            } else {
                clientSaw(event, by: peer, at: now)
            }
        }
    }

    mutating func report(_ words: String) {
        violationCount += 1
        if violations.count < 40 { violations.append(words) }
    }

    func isRude(_ peer: Int) -> Bool { people.indices.contains(peer) && people[peer].isRude }

    func name(of peer: Int) -> String {
        rules.clients.indices.contains(peer) ? rules.clients[peer].identifier : "the cloud"
    }

    func powerCutCount(since moment: UInt64) -> Int {
        var count = 0
        for cut in powerCuts.reversed() {
            guard cut >= moment else { break }
            count += 1
        }
        return count
    }

    // MARK: Messages

    func place(of name: MessageName) -> Int? { places[name] }

    @discardableResult
    private mutating func published(
        _ publishing: PeerEvent.Publishing, isWill: Bool = false, by peer: Int, at now: UInt64
    ) -> Int {
        if let i = places[publishing.name] {
            messages[i].sends += 1
            return i
        }
        let topic = matching.place(ofTopic: publishing.topic)
        let i = messages.count
        messages.append(
            OracleMessage(
                name: publishing.name, author: peer, topic: topic, qos: publishing.qos,
                retain: publishing.retain, isEmpty: publishing.isEmpty, size: publishing.size,
                expirySeconds: publishing.expirySeconds, isWill: isWill, firstSent: now))
        places[publishing.name] = i
        if publishing.retain { retained[topic, default: []].append(i) }
        return i
    }

    mutating func willSet(_ will: PeerEvent.Publishing, by peer: Int, at now: UInt64) -> Int {
        published(will, isWill: true, by: peer, at: now)
    }

    mutating func accepted(_ name: MessageName, at now: UInt64) {
        guard let i = places[name] else { return report("\(name) was accepted before it was sent") }
        messages[i].takenBefore = min(messages[i].takenBefore, now)
        messages[i].isOwed = !isRude(messages[i].author) && !messages[i].isDisowned
    }

    /// The gateway has this message no more.
    ///
    /// - Parameter mayComeAgain: nor anything of its having taken it.
    mutating func lost(_ name: MessageName, mayComeAgain: Bool) {
        change(name) {
            $0.isOwed = false
            $0.isDisowned = true
            if mayComeAgain { $0.extraTakes += 1 }
        }
    }

    /// The gateway may have forgotten of any message that it has arrived.
    ///
    /// - Complexity: O(messages)
    mutating func anythingMayRepeat() {
        for i in messages.indices { messages[i].extraTakes += 1_000 }
    }

    mutating func change(_ name: MessageName, _ body: (inout OracleMessage) -> Void) {
        if let i = places[name] { body(&messages[i]) }
    }

    /// The QoS at which a message is passed on within the gateway, and under which topic; nil when nobody within the
    /// gateway asks for it.
    mutating func local(_ message: OracleMessage) -> (topic: Int, qos: QoS)? {
        guard message.author == rules.clients.count else { return (message.topic, message.qos) }
        let topic = matching.topics[message.topic]
        guard let route = rules.in.first(where: { $0.carries(topic[...]) }) else { return nil }
        let renamed = route.rename?.applied(to: topic[...]) ?? topic
        return (matching.place(ofTopic: renamed), min(message.qos, route.maximumQoS))
    }
}
