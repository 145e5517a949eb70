import GatewayCore
import MQTT

/// One network connection to the cloud without the network: bytes of the cloud and packets of the core go in,
/// bytes for the cloud and events for the core come out.
///
/// It runs the engine and the ledger against each other. Whatever carries the bytes (TCP, TLS, WebSocket) is
/// somebody else's: it reads with `received`, writes what `takeWireBytes` returns, and closes when `ending`
/// is set and those bytes are written.
///
/// Nothing is called back: results are collected, so the core may answer an event with a command at once.
package final class Conversation {
    private let version: ProtocolVersion
    private let engine: Engine
    private var ledger: HandshakeLedger
    private var fromCloud: PacketDecoder
    private var fromEngine: PacketDecoder

    private var outputs: [HandshakeLedger.Output] = []
    /// What the engine is to read next.
    private var engineBytes: [UInt8] = []
    private var wireBytes: [UInt8] = []
    private var events: [UplinkEvent] = []
    private var notices: [UplinkNotice] = []

    /// Why the conversation is over; from then on every call does nothing.
    package private(set) var ending: LinkLoss?

    /// Begins with CONNECT, which is in the wire bytes when this returns.
    ///
    /// - Parameters:
    ///   - now: milliseconds of any clock that does not jump, the same that `tick` is given.
    ///   - held: what an earlier connection to the same address left unreleased.
    package init(
        plan: UplinkPlan, opening: UplinkOpening, now: UInt64, held: HeldByCloud = HeldByCloud()
    ) throws(EngineFailure) {
        version = plan.version
        engine = try Engine(
            clientIdentifier: plan.clientIdentifier, version: plan.version,
            keepAliveSeconds: plan.keepAliveSeconds, directory: plan.runtimeDirectory)
        ledger = HandshakeLedger(plan: plan, opening: opening, now: now, held: held)
        fromCloud = PacketDecoder(
            receiver: .client, version: plan.version,
            maximumPacketSize: plan.maximumPacketSize.map(Int.init) ?? Self.packetSizeMax,
            readsPastLargePublishes: true)
        fromEngine = PacketDecoder(receiver: .server, version: nil, maximumPacketSize: Self.packetSizeMax)
        pullEngine()
        settle()
    }

    /// A fixed header of 5 bytes and the largest Remaining Length [MQTT5-1.5.5].
    private static let packetSizeMax = 268_435_455 + 5

    /// Whether the core's packets are taken.
    package var isOpen: Bool { ledger.isOpen }
    /// See `HandshakeLedger.unreleased`.
    package var unreleased: Set<PacketIdentifier> { ledger.unreleased }

    /// Bytes from the cloud, however they are cut up.
    package func received(_ bytes: UnsafeRawBufferPointer) {
        fromCloud.append(bytes)
        while ending == nil {
            do throws(MalformedPacket) {
                guard let packet = try fromCloud.next() else { return }
                if fromCloud.isPayloadLeftOut, case .publish(let publish) = packet {
                    ledger.tooLarge(publish, into: &outputs)
                } else {
                    ledger.fromWire(packet, into: &outputs)
                }
                settle()
            } catch {
                if version == .v5_0, isOpen {
                    // [MQTT5-4.13.1-1]
                    Packet.disconnect(Disconnect(error.reasonCode)).encode(version: version, into: &wireBytes)
                }
                ending = .malformed(error)
            }
        }
    }

    /// A PUBLISH, PUBREL or acknowledgement of the core. Publications wait for `flush`.
    package func perform(_ packet: Packet) {
        guard ending == nil else { return }
        ledger.fromCore(packet, into: &outputs)
        settle()
    }

    /// Subscribes to what the routes ask for.
    package func subscribe() {
        guard ending == nil else { return }
        ledger.subscribe(into: &outputs)
        settle()
    }

    /// Moves what the core gave to the wire bytes.
    package func flush() {
        pullEngine()
        settle()
    }

    /// Says goodbye.
    ///
    /// - Parameter saysOffline: not when another connection follows at once.
    package func leave(saysOffline: Bool = true) {
        flush()
        ledger.leave(saysOffline: saysOffline, into: &outputs)
        settle()
    }

    /// Looks at the clocks; call about once a second.
    package func tick(now: UInt64) {
        guard ending == nil else { return }
        // First, so that a PINGREQ of the library's bears this tick's time.
        ledger.tick(now: now, into: &outputs)
        settle()
        engine.tick()
        flush()
    }

    /// What is to be written to the cloud, in one piece.
    package func takeWireBytes() -> [UInt8] {
        defer { wireBytes = [] }
        return wireBytes
    }

    /// What the core is to hear, in order.
    package func takeEvents() -> [UplinkEvent] {
        defer { events = [] }
        return events
    }

    /// What an operator may want to read.
    package func takeNotices() -> [UplinkNotice] {
        defer { notices = [] }
        return notices
    }

    // MARK: Engine and ledger

    /// Carries out the ledger's outputs, and those that come of them, in order.
    private func settle() {
        var next = 0
        while next < outputs.count, ending == nil {
            let output = outputs[next]
            next += 1
            switch output {
            case .wire(let packet):
                packet.encode(version: version, into: &wireBytes)
            case .engine(let packet):
                packet.encode(version: version, into: &engineBytes)
                // Nobody waits for what the engine makes of a PUBACK, so many of them cost one system call.
                if case .puback = packet { continue }
                pullEngine()
            case .publish(let publish):
                hand(publish)
            case .subscribe(let request):
                subscribe(request)
            case .event(let event):
                events.append(event)
            case .notice(let notice):
                notices.append(notice)
            case .over(let loss):
                ending = loss
            }
        }
        outputs.removeAll(keepingCapacity: true)
    }

    private func feedEngine() {
        guard !engineBytes.isEmpty else { return }
        engine.feed(engineBytes)
        engineBytes.removeAll(keepingCapacity: engineBytes.capacity <= 65_536)
    }

    private func hand(_ publish: Publish) {
        let mid = engine.publish(
            publish.message, qos: min(publish.qos, .atLeastOnce), retain: publish.retain)
        // A message around the engine keeps its place behind those in it.
        if mid == nil { pullEngine() }
        ledger.published(publish, as: mid.flatMap(PacketIdentifier.init(rawValue:)), into: &outputs)
    }

    private func subscribe(_ request: SubscriptionRequest) {
        guard let mid = engine.subscribe(request).flatMap(PacketIdentifier.init(rawValue:)) else {
            notices.append(.subscriptionRefused(request.filter, .topicFilterInvalid))
            return
        }
        ledger.subscribed(to: request.filter, as: mid)
        pullEngine()
    }

    /// Tells the ledger what the engine wrote and which callbacks ran.
    private func pullEngine() {
        guard ending == nil else { return }
        feedEngine()
        engine.pump()
        let bytes = engine.takeOutput()
        if !bytes.isEmpty {
            bytes.withUnsafeBytes { fromEngine.append($0) }
            readEngine()
        }
        for event in engine.takeEvents() {
            switch event {
            case .connected(code: 0):
                ledger.engineConnected(into: &outputs)
            case .message(let id, let payloadBytes):
                ledger.engineReceived(id: id, payloadBytes: payloadBytes, into: &outputs)
            case .connected, .published, .subscribed, .disconnected:
                // Nobody waits for these: the ledger saw the packets that caused them.
                break
            }
        }
        if let failure = engine.failure {
            ledger.engineFailed(failure.description, into: &outputs)
        }
    }

    private func readEngine() {
        do throws(MalformedPacket) {
            while let packet = try fromEngine.next() { ledger.fromEngine(packet, into: &outputs) }
        } catch {
            ledger.engineFailed("wrote a malformed packet (\(error))", into: &outputs)
        }
    }
}
