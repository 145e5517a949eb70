import GatewayCore
import MQTT
import Uplink

/// A peer that tells what it did and saw.
protocol Inhabitant: Peer {
    mutating func takeEvents() -> [PeerEvent]
    /// What it holds of these messages, nobody will ever ask it to let go of.
    mutating func mayHold(_ names: [MessageName])
    /// False while it leaves what is sent to it on the line.
    var isReading: Bool { get }
}

extension SimulatedClient: Inhabitant {}
extension SimulatedCloud: Inhabitant {
    var isReading: Bool { true }
}

/// Who is there, and what is known of them.
struct Cast {
    var peers: [any Inhabitant] = []
    private let names: [String]
    private let cloudPlace: Int
    let uplinkPlans: [UplinkPlan]
    private var oracle: Oracle
    private var reported = 0
    /// Durable bytes were damaged.
    private(set) var isDamaged = false
    /// Something beside padding and the like was in them.
    private(set) var isShort = false
    /// What was in them is needed to say what must be.
    private(set) var isBeyondJudgement = false
    private var accepted = 0
    private var delivered = 0

    init(_ scenario: Scenario, dice: Dice) {
        var dice = dice
        var names: [String] = []
        for plan in scenario.clients {
            names.append(plan.identifier)
            peers.append(SimulatedClient(plan, dice: dice.fork()))
        }
        cloudPlace = peers.count
        names.append("cloud")
        peers.append(SimulatedCloud(scenario.cloud, dice: dice.fork()))
        self.names = names
        uplinkPlans = [scenario.uplinkPlan]
        var rules = OracleRules(
            clients: scenario.clients, cloud: scenario.absent.contains(cloudPlace) ? nil : scenario.cloud)
        let routes = scenario.routes
        rules.out = routes.out
        rules.in = routes.in
        rules.returnGraceMilliseconds = scenario.gatewayPlan().limits.returnGraceMilliseconds
        rules.isOrderedUpwards = !routes.out.contains { $0.isLiveFirst }
        oracle = Oracle(rules)
    }

    func name(_ peer: Int) -> String { names[peer] }
    func isCloud(_ peer: Int) -> Bool { peer == cloudPlace }
    func cloud(_ index: UplinkIndex) -> Int { cloudPlace }
    func uplinkIndex(of peer: Int) -> UplinkIndex? { peer == cloudPlace ? UplinkIndex(0) : nil }

    /// Hears what somebody did and saw.
    mutating func listen(to peer: Int, at now: UInt64, _ trace: inout Trace) {
        for event in peers[peer].takeEvents() {
            trace.say("    \(names[peer]): \(event)", at: now)
            switch event {
            case .accepted: accepted += 1
            case .received: delivered += 1
            default: break
            }
            oracle.saw(event, by: peer, at: now)
        }
    }

    /// What was broken since it was asked last.
    mutating func takeViolations() -> [String] {
        defer { reported = oracle.violations.count }
        guard reported < oracle.violations.count, !isBeyondJudgement else { return [] }
        return Array(oracle.violations[reported...])
    }

    mutating func runs(since now: UInt64) { oracle.runs(since: now) }
    mutating func presses(_ isPressing: Bool, at now: UInt64) { oracle.presses(isPressing, at: now) }
    mutating func powerFailed(at now: UInt64) { oracle.powerFailed(at: now) }
    mutating func heardOut(_ peer: Int, at now: UInt64) { oracle.heardOut(peer, at: now) }
    mutating func allIsDurable() { oracle.allIsDurable() }

    /// The disk was damaged.
    mutating func pays(_ toll: Toll) {
        isDamaged = true
        isShort = isShort || !toll.isNothing
        isBeyondJudgement = isBeyondJudgement || toll.isBeyondJudgement
        let unknown = Set(toll.unknown)
        for name in toll.messages { oracle.lost(name, mayComeAgain: unknown.contains(name)) }
        for i in peers.indices { peers[i].mayHold(toll.unknown) }
        if toll.mayRepeat { oracle.anythingMayRepeat() }
    }

    /// Nothing waits for anybody who comes back for it.
    func owesNothing(_ state: borrowing DurableState) -> Bool {
        var queued = state.balance.queued
        if let letters = state.session(of: .deadLetters(uplink: "cloud")), let session = state[letters] {
            queued -= UInt64(session.queue.queuedCount)
        }
        return queued == 0
    }

    /// What is missing at the end.
    mutating func finish(_ state: borrowing DurableState, deadLetters: [MessageName], at now: UInt64)
        -> [String]
    {
        guard !isBeyondJudgement else { return [] }
        var end = Oracle.End()
        end.deadLetters = deadLetters
        let books = state.balance.books
        for reason in [DropReason.queueFull, .purged, .largerThanTaken, .loop, .noRoute] {
            end.droppedByPolicy += Int(books.dropped(reason))
        }
        var words =
            books.dropped(.damaged) > 0 && !isShort
            ? ["\(books.dropped(.damaged)) deliveries were given up as damaged"] : []
        words += oracle.finish(end, at: now)
        return words
    }

    func count(into statistics: inout Statistics) {
        statistics.published += accepted
        statistics.delivered += delivered
    }
}
