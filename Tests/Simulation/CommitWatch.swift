import GatewayCore
import Journal
import MQTT

/// Looks over the shoulder of one life of the gateway: what may linger, how long anything waits for its commit, and how
/// many commits that takes (rules A10, A11 and E1 to E7). None of this loses a message, so no peer would notice.
struct CommitWatch {
    private let plan: CommitPlan
    private let lazyDelayMilliseconds: UInt64
    private let batchBytesMax: Int
    private let startedAt: Instant

    private struct Waiting {
        let urgency: Urgency
        let since: Instant
        let bytes: Int
        var isElided = false

        /// Somebody waits for it who has less time than a second.
        var isPressing: Bool {
            switch urgency {
            case .lazy, .relaxed: false
            case .elidable, .message, .handshake, .control: true
            }
        }
    }

    /// Everything that was appended and not heard of since, from `first` on.
    private var waiting: [Waiting] = []
    private var head = 0
    private var first = Position.zero
    private var hastened: Position?
    private var ofBatches: Set<OperationToken> = []
    /// In millionths: there are no fewer.
    private var tokens: Int64
    private var tokensAt: Instant
    private var lastBatch: Batch?
    private var completedBatch: OperationToken?
    private var isCheckpointWaiting = false

    private struct Batch {
        let token: OperationToken
        let file: String
        let bytes: Int
        let at: Instant
    }

    /// Nothing is sure any more once the disk has refused something.
    private var isTroubled = false

    // What may be committed.
    private var commits = 0
    private var allowed = 0
    private var bytes = 0

    /// Records that a peer's packet led to, and that its answer must wait for.
    private var promised: [Promise: Position] = [:]
    private var answering: Promise?
    private var durable = Position.zero

    fileprivate struct Promise: Hashable {
        let speaker: Speaker
        let asks: Asks
        let id: PacketIdentifier?
    }

    enum Speaker: Hashable {
        case client(connection: UInt64)
        /// Whatever connection it comes on: a cloud goes on where the last one broke off.
        case cloud(Int)
    }

    /// What an answer is owed to.
    fileprivate enum Asks: Hashable { case connect, subscribe, unsubscribe, publish, pubrec, pubrel }

    /// The last end of each client's Session in this life.
    private var endedAt: [String: Position] = [:]
    private var clientOf: [SessionID: String] = [:]
    private var identifierOn: [Speaker: String] = [:]

    // Sessions of this life's clients.
    private var isHere: Set<SessionID> = []
    private var hasWill: Set<SessionID> = []
    private var leavesNoTrace: Set<SessionID> = []

    private(set) var violations: [String] = []
    private static let token: Int64 = 1_000_000

    init(_ plan: JournalPlan, startedAt: Instant, behind last: Position) {
        self.plan = plan.commits
        lazyDelayMilliseconds = plan.lazyDelayMilliseconds
        batchBytesMax = plan.batchBytesMax
        self.startedAt = startedAt
        tokens = Int64(clamping: plan.commits.burst) * Self.token
        tokensAt = startedAt
        first = last.next
    }

    // MARK: What is promised

    /// What is appended from now on follows from this packet, until `hasHeard`.
    mutating func hears(_ packet: borrowing Packet, from speaker: Speaker) {
        func asks(_ what: Asks, _ id: PacketIdentifier? = nil) -> Promise {
            Promise(speaker: speaker, asks: what, id: id)
        }
        switch packet {
        case .connect(let connect):
            identifierOn[speaker] = connect.clientIdentifier
            answering = asks(.connect)
        case .subscribe(let subscribe): answering = asks(.subscribe, subscribe.id)
        case .unsubscribe(let unsubscribe): answering = asks(.unsubscribe, unsubscribe.id)
        case .publish(let publish) where publish.qos == .exactlyOnce: answering = asks(.publish, publish.id)
        case .pubrec(let pubrec): answering = asks(.pubrec, pubrec.id)
        case .pubrel(let pubrel): answering = asks(.pubrel, pubrel.id)
        default: answering = nil
        }
    }

    mutating func hasHeard() { answering = nil }

    /// An answer leaves. What it promises too early hardly any peer can find out (rules A2, A4, A6, A9 and A10), least of
    /// all of an answer that is given again.
    mutating func says(_ packet: borrowing Packet, to speaker: Speaker) {
        let promise: Promise
        let name: String
        switch packet {
        case .connack(let connack):
            (promise, name) = (Promise(speaker: speaker, asks: .connect, id: nil), "A9, A10: CONNACK")
            if connack.reason.isError { return }
            if !connack.sessionPresent, let ended = identifierOn[speaker].flatMap({ endedAt[$0] }),
                ended > durable
            {
                violate("A9: CONNACK says that there is no Session before record \(ended.number) is durable")
            }
        case .suback(let suback):
            (promise, name) = (Promise(speaker: speaker, asks: .subscribe, id: suback.id), "A9: SUBACK")
        case .unsuback(let unsuback):
            (promise, name) = (Promise(speaker: speaker, asks: .unsubscribe, id: unsuback.id), "A9: UNSUBACK")
        case .pubrec(let pubrec):
            (promise, name) = (Promise(speaker: speaker, asks: .publish, id: pubrec.id), "A2: PUBREC")
            if pubrec.reason.isError { return }
        case .pubrel(let pubrel):
            (promise, name) = (Promise(speaker: speaker, asks: .pubrec, id: pubrel.id), "A6: PUBREL")
        case .pubcomp(let pubcomp):
            (promise, name) = (Promise(speaker: speaker, asks: .pubrel, id: pubcomp.id), "A4: PUBCOMP")
        default: return
        }
        guard let position = promised[promise] else { return }
        guard position > durable else {
            promised[promise] = nil
            return
        }
        violate("\(name) leaves before record \(position.number) is durable")
    }

    // MARK: What the core wants written

    /// - Parameter isClient: whether a Session is that of a client, which is here only after it has connected.
    mutating func appended(
        _ record: Record, _ urgency: Urgency, at now: Instant, isClient: (SessionID) -> Bool
    ) {
        var size = 64
        if case .message(let message) = record {
            size += message.message.bytes.count + 16 * message.targets.count
        }
        bytes += size
        waiting.append(Waiting(urgency: urgency, since: now, bytes: size))
        switch urgency {
        case .relaxed, .handshake, .control: allowed += 1
        case .lazy, .elidable, .message: break
        }
        let position = Position(first.number + UInt64(waiting.count - head) - 1)
        if let answering, answering.isPromised(by: record) || brings(record, to: answering) {
            promised[answering] = position
        }
        switch record {
        case .sessionOpened(let opened):
            if case .client(let identifier) = opened.owner { clientOf[opened.session] = identifier }
            isHere.insert(opened.session)
            if opened.will != nil { hasWill.insert(opened.session) } else { hasWill.remove(opened.session) }
            if !opened.isPersistent { leavesNoTrace.insert(opened.session) }
        case .sessionClosed(let closed):
            isHere.remove(closed.session)
            if closed.discardsWill, hasWill.remove(closed.session) != nil, urgency == .lazy {
                violate("A10: a Will that was discarded is written as gone when it suits")
            }
        case .sessionEnded(let session, _):
            if let client = clientOf.removeValue(forKey: session) { endedAt[client] = position }
            isHere.remove(session)
            hasWill.remove(session)
        case .message(let message): judge(message, urgency, isClient)
        case .subscribed, .unsubscribed, .inboundReleased, .inboundVoided, .outboundReceived, .acknowledged,
            .dropped, .uplinkEstablished, .assigned, .returned, .wasOff, .profiled, .counters, .retained,
            .inboundHeld, .queue, .books, .lost:
            break
        }
    }

    /// Whether it is a retained message for who subscribes.
    private func brings(_ record: Record, to answering: Promise) -> Bool {
        guard answering.asks == .subscribe, case .message(let message) = record, message.publisher == nil,
            message.willOf == nil, message.targets.count == 1, let target = message.targets.first
        else { return false }
        return target.retain && clientOf[target.session] == identifierOn[answering.speaker]
    }

    private mutating func judge(_ message: MessageRecord, _ urgency: Urgency, _ isClient: (SessionID) -> Bool)
    {
        if let willOf = message.willOf { hasWill.remove(willOf) }
        if let publisher = message.publisher, publisher.isVolatile || leavesNoTrace.contains(publisher) {
            violate("A11: an identifier is recorded of a Session that ends with the power")
        }
        guard urgency == .elidable else { return }
        if message.qos == .exactlyOnce { violate("E7: a QoS 2 message lingers") }
        if message.retained != .none { violate("E1: a retained message lingers") }
        if message.willOf != nil { violate("E1: a Will lingers") }
        for target in message.targets
        where target.delivery != nil && !isHere.contains(target.session) && isClient(target.session) {
            violate("E5: a message lingers although somebody who is away is owed it")
        }
    }

    mutating func hastens(_ position: Position) {
        hastened = max(hastened ?? .zero, position)
        allowed += 1
    }

    /// The log is made durable up to here first, so that all that waits is written.
    mutating func checkpointBegins() { isCheckpointWaiting = true }

    // MARK: What the journal makes of it

    mutating func told(_ event: StorageEvent) {
        switch event {
        case .durable(let position):
            durable = position
            while head < waiting.count, first <= position {
                head += 1
                first = first.next
            }
            if head > 1000, head > waiting.count / 2 {
                waiting.removeFirst(head)
                head = 0
            }
        case .elided(let position):
            guard position >= first else { return }
            let place = head + Int(position.number - first.number)
            if place < waiting.count { waiting[place].isElided = true }
        case .failed, .stuck, .pressure: isTroubled = true
        case .sealed: allowed += 2
        case .indexed, .loaded, .recovered: break
        }
    }

    mutating func completed(_ completion: DiskCompletion) {
        if ofBatches.remove(completion.token) != nil, completion.token == lastBatch?.token {
            completedBatch = completion.token
        }
        if case .failed = completion.outcome { isTroubled = true }
    }

    /// After everything that followed from an event.
    ///
    /// - Parameter operations: what the disk is asked because of it.
    mutating func roundEnded(_ operations: [DiskOperation], at now: Instant) {
        for operation in operations {
            switch operation.action {
            case .write(let file, _, let written):
                if completedBatch != nil, lastBatch?.file == file.name { checkCompleteness(at: now) }
                ofBatches.insert(operation.token)
                lastBatch = Batch(token: operation.token, file: file.name, bytes: written.count, at: now)
                commits += 1
                fill(at: now)
                tokens = max(tokens - Self.token, -Self.token)
            case .createSegment, .reuseSegment:
                ofBatches.insert(operation.token)
                allowed += 2
            case .writeCheckpoint:
                allowed += 1
                isCheckpointWaiting = false
            case .writeFooter, .read, .writePart, .publish, .delete, .retire, .makeReserve, .measureSpace:
                break
            }
        }
        defer { (hastened, completedBatch) = (nil, nil) }
        guard !isTroubled, ofBatches.isEmpty else { return }
        checkWaiting(at: now)
        checkNumber(at: now)
    }

    // MARK: Judging

    private mutating func checkWaiting(at now: Instant) {
        // The oldest of those for which somebody waits who has no time; older ones are few.
        var place = head
        while place < waiting.count, waiting[place].isElided || !waiting[place].isPressing {
            if !waiting[place].isElided {
                let bound =
                    waiting[place].urgency == .relaxed
                    ? max(plan.windowMilliseconds, plan.relaxedMilliseconds)
                    : lazyDelayMilliseconds + plan.windowMilliseconds
                check(waiting[place], within: bound, at: now)
            }
            place += 1
        }
        guard place < waiting.count else { return }
        check(waiting[place], within: plan.windowMilliseconds, at: now)
        guard let hastened, first.number + UInt64(place - head) <= hastened.number else { return }
        fill(at: now)
        if tokens >= Self.token { violate("E4: what a receiver was sent that is gone lingers on") }
    }

    private mutating func fill(at now: Instant) {
        let gain =
            Int64(clamping: now.milliseconds(since: tokensAt)) * Int64(clamping: plan.commitsPerSecond) * 1000
        tokens = min(Int64(clamping: plan.burst) * Self.token, tokens + gain)
        tokensAt = now
    }

    /// A batch takes all there is, so that what lingers costs one commit a window: what it left although there was room is
    /// not written at once behind it without need.
    private mutating func checkCompleteness(at now: Instant) {
        guard !isTroubled, !isCheckpointWaiting, hastened == nil, let lastBatch else { return }
        let rest = waiting[head...].filter { !$0.isElided }
        guard let next = rest.first(where: { $0.isPressing }),
            rest.allSatisfy({ !$0.isPressing || $0.urgency == .elidable }),
            next.since < lastBatch.at, next.bytes + lastBatch.bytes <= batchBytesMax / 2,
            now.milliseconds(since: next.since) < plan.windowMilliseconds
        else { return }
        violate("E6: what lingers is written in more commits than one a window")
    }

    private mutating func check(_ waiting: Waiting, within milliseconds: UInt64, at now: Instant) {
        let age = now.milliseconds(since: waiting.since)
        if age > milliseconds + 5 {
            violate("E4: a record that is \(waiting.urgency) waits for \(age) ms while the disk is idle")
        }
    }

    /// Commits cost the flash a page each: no more of them than there were tokens, deadlines and full batches.
    private mutating func checkNumber(at now: Instant) {
        let elapsed = now.milliseconds(since: startedAt)
        let tokens = plan.burst + 1 + elapsed * plan.commitsPerSecond / 1000
        let windows = plan.windowMilliseconds == 0 ? 0 : elapsed / plan.windowMilliseconds + 1
        let lazy = elapsed / max(1, lazyDelayMilliseconds) + 1
        let full = 4 * bytes / min(batchBytesMax, plan.bytesMax) + 1
        let most = allowed + Int(clamping: tokens + windows + lazy) + full
        if commits > most { violate("E6: \(commits) commits where \(most) are enough") }
    }

    private mutating func violate(_ words: String) { if violations.count < 5 { violations.append(words) } }
}

extension CommitWatch.Promise {
    /// Whether the answer waits for this Record.
    fileprivate func isPromised(by record: Record) -> Bool {
        switch (asks, record) {
        case (.publish, .message(let message)): message.inboundID == id
        case (.connect, .sessionOpened), (.connect, .sessionEnded), (.subscribe, .subscribed),
            (.unsubscribe, .unsubscribed), (.pubrec, .outboundReceived), (.pubrel, .inboundReleased):
            true
        default: false
        }
    }
}
