import GatewayCore
import MQTT
import NIOCore
import NIOPosix
import Synchronization

@testable import Uplink

/// A link on an event loop, with what it says collected.
final class Probe {
    private let eventLoop: any EventLoop = MultiThreadedEventLoopGroup.singleton.next()
    private let link: EventLoopFuture<NIOLoopBound<UplinkLink>>
    private var events: AsyncStream<UplinkEvent>.Iterator
    private var notices: AsyncStream<UplinkNotice>.Iterator
    private let seen = Seen()
    private final class Seen: Sendable {
        let notices = Mutex<[UplinkNotice]>([])
    }

    init(_ plan: UplinkPlan) {
        let (events, eventSink) = AsyncStream.makeStream(of: UplinkEvent.self)
        let (notices, noticeSink) = AsyncStream.makeStream(of: UplinkNotice.self)
        self.events = events.makeAsyncIterator()
        self.notices = notices.makeAsyncIterator()
        let (eventLoop, seen) = (self.eventLoop, self.seen)
        link = eventLoop.submit {
            NIOLoopBound(
                UplinkLink(
                    plan: plan, index: UplinkIndex(0), eventLoop: eventLoop,
                    deliver: { eventSink.yield($1) },
                    log: { notice in
                        seen.notices.withLock { $0.append(notice) }
                        noticeSink.yield(notice)
                    }),
                eventLoop: eventLoop)
        }
    }

    /// One that opened a new Session and has subscribed.
    static func connected(_ plan: UplinkPlan) async throws -> Probe {
        let probe = Probe(plan)
        try await probe.perform(.open(cleanStart: true))
        _ = try await probe.connected()
        return probe
    }

    func perform(_ commands: UplinkCommand...) async throws {
        try await link.map { link in
            for command in commands { link.value.perform(command) }
            link.value.flush()
        }.get()
    }

    func adopt(_ plan: UplinkPlan) async throws {
        try await link.map { $0.value.adopt(plan) }.get()
    }

    func stop() async throws {
        try await link.map { $0.value.stop() }.get()
    }

    func connected() async throws -> UplinkTerms {
        guard case .connected(let terms) = try await next() else { throw Unexpected() }
        try await perform(.subscribe)
        return terms
    }

    func disconnected() async throws {
        guard case .disconnected = try await next() else { throw Unexpected() }
    }

    func received() async throws -> Packet {
        guard case .received(let packet) = try await next() else { throw Unexpected() }
        return packet
    }

    func receivedPublish() async throws -> Publish {
        guard case .publish(let publish) = try await received() else { throw Unexpected() }
        return publish
    }

    /// The Topic Name of a message that was too large.
    func receivedTooLarge() async throws -> [UInt8] {
        guard case .receivedTooLarge(let publish) = try await next() else { throw Unexpected() }
        return Array(publish.message.topic)
    }

    var noticesSoFar: [UplinkNotice] { seen.notices.withLock { $0 } }

    /// Waits for a notice, whatever comes before it.
    func noticed(_ wanted: UplinkNotice) async throws {
        _ = try await noticed { $0 == wanted }
    }

    /// Waits for the next loss, whatever comes before it.
    func lost() async throws -> LinkLoss {
        let notice = try await noticed { if case .lost = $0 { true } else { false } }
        guard case .lost(let loss) = notice else { throw Unexpected() }
        return loss
    }

    func noticed(where isWanted: (UplinkNotice) -> Bool) async throws -> UplinkNotice {
        while let notice = await notices.next() {
            if isWanted(notice) { return notice }
        }
        throw Unexpected()
    }

    private func next() async throws -> UplinkEvent {
        while let event = await events.next() {
            // Who does not ask for it is not told.
            if case .writability = event { continue }
            return event
        }
        throw Unexpected()
    }

    /// Waits until the send buffer is full, or has room again.
    func writability() async throws -> Bool {
        guard case .writability(let isWritable)? = await events.next() else { throw Unexpected() }
        return isWritable
    }

    private struct Unexpected: Error {}

    /// Publishes at QoS 1 and waits until the cloud has it.
    func publish(_ topic: String, _ payload: String = "x", id: PacketIdentifier = 1) async throws {
        let message = ApplicationMessage(topic: Array(topic.utf8), payload: Array(payload.utf8))
        try await perform(.send(.publish(Publish(message: message, qos: .atLeastOnce, id: id))))
        guard case .puback(let ack) = try await received(), ack.id == id, !ack.reason.isError else {
            throw Unexpected()
        }
    }
}
