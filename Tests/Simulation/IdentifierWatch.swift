import GatewayCore
import MQTT

/// Looks over the shoulder of one life of the gateway: no Packet Identifier is used anew while a power cut could bring
/// back a delivery that had it (rule A7).
///
/// In the product identifiers go round after so many deliveries that no run sees it happen. What a run can see is
/// whether the gateway keeps to the span it was given: a delivery that far ahead would have the identifier of the one
/// that is not durably settled.
struct IdentifierWatch {
    private let span: UInt64
    private var sessionOf: [UInt64: SessionID] = [:]
    /// What was written in this life, or may have been, and is not durably settled; in rising order.
    private var unsettled: [SessionID: [(delivery: Delivery, position: Position)]] = [:]
    /// Records that settle some of it once they are durable.
    private var settling: [(position: Position, session: SessionID, isSettled: (Delivery) -> Bool)] = []
    private(set) var violations: [String] = []

    init(span: UInt64) { self.span = min(span, PacketIdentifierRule.whole.span) }

    /// - Parameter connection: whose packet led to it, if one did.
    mutating func appended(_ record: Record, at position: Position, on connection: UInt64?) {
        switch record {
        case .sessionOpened(let opened):
            if let connection { sessionOf[connection] = opened.session }
        case .sessionEnded(let session, _): unsettled[session] = nil
        case .message(let message):
            for target in message.targets {
                guard let delivery = target.delivery else { continue }
                unsettled[target.session, default: []].append((delivery, position))
            }
        case .acknowledged(let settled):
            let above = Set(settled.settledAbove)
            settling.append((position, settled.session, { $0 < settled.floor || above.contains($0) }))
        case .dropped(let session, let deliveries, _):
            let dropped = Set(deliveries)
            settling.append((position, session, { dropped.contains($0) }))
        case .assigned(let assigned):
            settling.append((position, assigned.group, { $0 == assigned.delivery }))
        case .sessionClosed, .subscribed, .unsubscribed, .inboundReleased, .inboundVoided, .outboundReceived,
            .uplinkEstablished, .returned, .wasOff, .profiled, .counters, .retained, .inboundHeld, .queue,
            .books, .lost:
            break
        }
    }

    mutating func durable(upTo position: Position) {
        let done = settling.prefix { $0.position <= position }
        for settled in done { unsettled[settled.session]?.removeAll { settled.isSettled($0.delivery) } }
        settling.removeFirst(done.count)
    }

    /// Nothing brings back what was never written.
    mutating func elided(_ position: Position) {
        for session in unsettled.keys.sorted(by: { $0.number < $1.number }) {
            unsettled[session]?.removeAll { $0.position == position }
        }
    }

    mutating func sends(_ publish: Publish, on connection: UInt64) {
        guard let id = publish.id, let session = sessionOf[connection],
            let deliveries = unsettled[session], let oldest = deliveries.first?.delivery,
            let delivery = deliveries.last(where: {
                PacketIdentifierRule.whole.identifier(of: $0.delivery, qos: publish.qos) == id
            })?.delivery,
            delivery.number >= oldest.number + span, violations.count < 5
        else { return }
        violations.append(
            "A7: delivery \(delivery.number) is sent, and \(oldest.number) is not durably settled: they have one identifier"
        )
    }
}
