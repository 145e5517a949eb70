import GatewayCore
import MQTT
import Uplink

/// What `UplinkLink` does around a `Conversation`, without a network: it wants a connection, loses it and wants another
/// for as long as the core wants one.
struct SimulatedUplink {
    enum Step {
        /// Make a connection, so many milliseconds from now.
        case dial(after: UInt64)
        case send([UInt8])
        case hangUp
    }

    private enum Phase {
        case idle
        case waiting
        case talking(Conversation)
    }

    private let plan: UplinkPlan
    private var phase = Phase.idle
    private var dice: Dice
    private var held = HeldByCloud()
    private var asBridge = true
    private var wantsClean = false
    private var failures = 0
    private var openedAt: UInt64?
    private var latest: UInt64 = 0

    private var pending: [UplinkEvent] = []
    private var steps: [Step] = []
    private var isAnnounced = false
    private var isHeard = false
    /// The connection was made; CONNECT is due.
    var isReady = false
    /// A second is over.
    var isTicking = false

    init(plan: UplinkPlan, dice: Dice) {
        self.plan = plan
        self.dice = dice
    }

    var hasEvents: Bool { !pending.isEmpty || isReady }

    mutating func takeEvents() -> [UplinkEvent] {
        defer { pending = [] }
        return pending
    }

    mutating func takeSteps() -> [Step] {
        defer { steps = [] }
        return steps
    }

    // MARK: From the core

    mutating func perform(_ command: UplinkCommand) {
        switch command {
        case .open(let cleanStart):
            wantsClean = cleanStart
            if case .idle = phase { connect(after: 0) }
        case .send(let packet):
            guard isHeard, case .talking(let conversation) = phase else { return }
            conversation.perform(packet)
        case .subscribe:
            guard isHeard, case .talking(let conversation) = phase else { return }
            conversation.subscribe()
        case .reconnect: if case .talking = phase { lose(.asked) }
        case .close:
            if case .talking(let conversation) = phase {
                held.identifiers = conversation.unreleased
                conversation.leave(saysOffline: true)
                write(conversation)
                hangUp()
            }
            phase = .idle
        }
    }

    /// What the core is told now, it may answer from now on.
    mutating func isHearing(_ event: UplinkEvent) {
        switch event {
        case .connected: isHeard = true
        case .disconnected: isHeard = false
        case .received, .receivedTooLarge, .writability: break
        }
    }

    // MARK: From the network

    mutating func received(_ bytes: [UInt8]) {
        guard case .talking(let conversation) = phase else { return }
        bytes.withUnsafeBytes { conversation.received($0) }
        absorb(conversation)
    }

    mutating func writability(_ isWritable: Bool) {
        guard isAnnounced else { return }
        pending.append(.writability(isWritable))
    }

    mutating func fails(_ loss: LinkLoss) {
        guard case .waiting = phase else { return }
        failed(loss)
    }

    mutating func lose(_ loss: LinkLoss) {
        guard case .talking(let conversation) = phase else { return }
        held.identifiers = conversation.unreleased
        failed(loss)
        hangUp()
    }

    // MARK: Working

    /// - Parameter uptime: milliseconds of a clock that does not jump.
    mutating func work(_ uptime: UInt64) {
        latest = uptime
        if isReady {
            isReady = false
            begin()
        }
        guard isTicking else { return }
        isTicking = false
        guard case .talking(let conversation) = phase else { return }
        conversation.tick(now: uptime)
        absorb(conversation)
    }

    mutating func flush() {
        guard case .talking(let conversation) = phase else { return }
        conversation.flush()
        absorb(conversation)
    }

    private mutating func connect(after milliseconds: UInt64) {
        phase = .waiting
        steps.append(.dial(after: milliseconds))
    }

    private mutating func begin() {
        guard case .waiting = phase else { return }
        do throws(EngineFailure) {
            let conversation = try Conversation(plan: plan, opening: opening, now: latest, held: held)
            phase = .talking(conversation)
            absorb(conversation)
        } catch {
            // The real library could not be had: no run can tell anything then.
            preconditionFailure("libmosquitto: \(error)")
        }
    }

    private var opening: UplinkOpening {
        if plan.version == .v5_0 { return wantsClean ? .clean : .resume(asBridge: false) }
        return wantsClean ? .sweep(asBridge: asBridge) : .resume(asBridge: asBridge)
    }

    private mutating func absorb(_ conversation: Conversation) {
        _ = conversation.takeNotices()
        for event in conversation.takeEvents() {
            if case .connected = event {
                isAnnounced = true
                openedAt = latest
                wantsClean = false
                held.isForgotten = false
            }
            pending.append(event)
        }
        write(conversation)
        if let ending = conversation.ending { lose(ending) }
    }

    private mutating func write(_ conversation: Conversation) {
        let bytes = conversation.takeWireBytes()
        if !bytes.isEmpty { steps.append(.send(bytes)) }
    }

    private mutating func hangUp() {
        steps.append(.hangUp)
        if isAnnounced {
            isAnnounced = false
            pending.append(.disconnected)
        }
    }

    private mutating func failed(_ loss: LinkLoss) {
        if loss == .swept {
            wantsClean = false
            return connect(after: 0)
        }
        if let openedAt {
            self.openedAt = nil
            if latest - openedAt >= 5_000 {
                failures = 0
                return connect(after: 0)
            }
        } else if loss == .closed || loss == .refused(.unsupportedProtocolVersion) {
            asBridge.toggle()
        }
        failures = min(failures + 1, 16)
        let bound = min(plan.backoffMaxMilliseconds, max(1, plan.backoffMinMilliseconds) << Int64(failures))
        connect(after: UInt64(dice.below(Int(bound) + 1)))
    }
}
