import GatewayCore
import MQTT
import NIOCore

/// Connects to one address of an uplink as the gateway would, sees what the cloud offers, and leaves without a trace.
///
/// Under a Client Identifier of its own and with Clean Start, so that the session of a running gateway is neither taken
/// over nor discarded; it ends its own with DISCONNECT. It bears no Will, which could tell a lie, publishes nothing, and
/// subscribes to what the `in` routes do without asking for retained messages.
package final class CloudProbe {
    /// What was learned.
    package enum Outcome: Sendable {
        /// With the Reason Code for each of the plan's subscriptions, in order; nil where none came.
        case met(Connack, subscriptions: [ReasonCode?])
        case failed(LinkLoss)
    }

    package static let identifierSuffix = "-doctor"

    private let plan: UplinkPlan
    private let address: UplinkAddress
    private let eventLoop: any EventLoop
    private var ended: ((Outcome) -> Void)?
    private var dial: Dial?
    private var wire: Wire?
    private var decoder: PacketDecoder
    private var deadline: Scheduled<Void>?
    private var greeting: Connack?
    private var answers: [ReasonCode?]

    /// - Parameter ended: called once, on the loop.
    package init(
        _ plan: UplinkPlan, at address: UplinkAddress, eventLoop: any EventLoop,
        ended: @escaping (Outcome) -> Void
    ) {
        self.plan = plan
        self.address = address
        self.eventLoop = eventLoop
        self.ended = ended
        answers = plan.subscriptions.map { _ in nil }
        decoder = PacketDecoder(
            receiver: .client, version: plan.version, maximumPacketSize: Self.packetBytesMax,
            readsPastLargePublishes: true)
    }

    /// CONNACK and SUBACK are smaller; a PUBLISH that is larger is read past.
    private static let packetBytesMax = 1 << 20

    package func start() {
        eventLoop.preconditionInEventLoop()
        var files = SecurityFiles(plan.security ?? UplinkSecurity())
        if address.isSecure, case .unusable(let words) = files.look() {
            return end(.failed(.securityUnusable(words)))
        }
        let dial = Dial(address, plan: plan, security: files.context, eventLoop: eventLoop) { outcome in
            switch outcome {
            case .ready(let wire): self.begin(on: wire)
            case .failed(let loss): self.end(.failed(loss))
            }
        }
        self.dial = dial
        dial.start()
    }

    private func begin(on wire: Wire) {
        self.wire = wire
        wire.listen(self)
        scheduleDeadline(.failed(.noConnack))
        let isNew = plan.version == .v5_0
        write(
            .connect(
                Connect(
                    version: plan.version, clientIdentifier: plan.clientIdentifier + Self.identifierSuffix,
                    cleanStart: true, keepAliveSeconds: plan.keepAliveSeconds, userName: plan.userName,
                    password: plan.password, sessionExpirySeconds: isNew ? plan.sessionExpirySeconds : nil,
                    receiveMaximum: isNew ? plan.receiveMaximum : nil,
                    maximumPacketSize: isNew ? plan.maximumPacketSize : nil)))
    }

    func received(_ bytes: ByteBuffer) {
        bytes.withUnsafeReadableBytes { decoder.append($0) }
        do throws(MalformedPacket) {
            while ended != nil, let packet = try decoder.next() { take(packet) }
        } catch {
            end(.failed(.malformed(error)))
        }
    }

    func closed(_ loss: LinkLoss) { end(greeting.map { .met($0, subscriptions: answers) } ?? .failed(loss)) }

    private func take(_ packet: Packet) {
        switch packet {
        case .connack(let connack) where greeting == nil:
            greeted(connack)
        case .suback(let suback):
            let index = Int(suback.id.rawValue) - 1
            if answers.indices.contains(index) { answers[index] = suback.reasons.first }
            if !answers.contains(where: { $0 == nil }) { finish() }
        case .disconnect(let disconnect):
            closed(.disconnected(disconnect.reason))
        default:
            // Messages for the subscriptions, which are not acknowledged: they end with the session.
            break
        }
    }

    private func greeted(_ connack: Connack) {
        guard connack.reason == .success else { return end(.failed(.refused(connack.reason))) }
        greeting = connack
        guard !plan.subscriptions.isEmpty else { return finish() }
        scheduleDeadline(.met(connack, subscriptions: answers))
        for (index, subscription) in plan.subscriptions.enumerated() {
            // One packet each, so that a refusal of one leaves the others.
            guard let id = PacketIdentifier(rawValue: UInt16(index + 1)) else { return finish() }
            let request = SubscriptionRequest(
                filter: subscription.filter, maximumQoS: subscription.maximumQoS, noLocal: true,
                retainAsPublished: true, retainHandling: .doNotSend)
            write(.subscribe(Subscribe(id: id, requests: [request])))
        }
    }

    /// Leaves nothing behind at the cloud: with MQTT 5 the session expires now, before it ended with the connection
    /// anyway.
    private func finish() {
        guard let greeting else { return }
        write(
            .disconnect(
                Disconnect(.normalDisconnection, sessionExpirySeconds: plan.version == .v5_0 ? 0 : nil)))
        end(.met(greeting, subscriptions: answers))
    }

    private func scheduleDeadline(_ outcome: Outcome) {
        deadline?.cancel()
        deadline = eventLoop.assumeIsolated().scheduleTask(in: .seconds(plan.connectTimeoutSeconds)) {
            self.greeting == nil ? self.end(outcome) : self.finish()
        }
    }

    private func write(_ packet: Packet) {
        var bytes: [UInt8] = []
        packet.encode(version: plan.version, into: &bytes)
        wire?.write(bytes)
    }

    private func end(_ outcome: Outcome) {
        guard let ended else { return }
        self.ended = nil
        deadline?.cancel()
        wire?.hangUp()
        wire = nil
        dial = nil
        ended(outcome)
    }
}
