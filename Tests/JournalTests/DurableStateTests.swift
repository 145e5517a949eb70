import GatewayCore
import MQTT
import Testing

@testable import Journal

@Suite("The gateway's state through the journal")
struct DurableStateTests {
    /// A life of one client and its queue, as the core would record it.
    static func records() throws -> [Record] {
        let session = SessionID(1)
        let filter = try #require(TopicFilter("t/#"))
        var records: [Record] = [
            .sessionOpened(
                SessionOpened(
                    session: session, owner: .client(identifier: "press-12"), version: .v5_0,
                    expirySeconds: 3600,
                    isPersistent: true,
                    will: Will(
                        message: ApplicationMessage(topic: Array("gone".utf8), payload: [1]),
                        qos: .atLeastOnce,
                        retain: true))),
            .subscribed(session, [Subscription(filter: filter, maximumQoS: .exactlyOnce)]),
        ]
        for n in 0..<30 {
            records.append(
                .message(
                    MessageRecord(
                        publisher: session, inboundID: PacketIdentifier(rawValue: UInt16(n + 1)),
                        qos: .exactlyOnce,
                        retained: n % 10 == 0 ? .store : .none,
                        message: ApplicationMessage(
                            topic: Array("t/\(n)".utf8), payload: Array(repeating: UInt8(n), count: 2000)),
                        targets: [
                            .init(
                                session: session, delivery: n % 7 == 6 ? nil : Delivery(UInt64(n)),
                                qos: n % 2 == 0 ? .exactlyOnce : .atLeastOnce)
                        ])))
            if n % 3 == 0, let id = PacketIdentifier(rawValue: UInt16(n + 1)) {
                records.append(.inboundReleased(session, id))
            }
        }
        records.append(.outboundReceived(session, Delivery(4)))
        records.append(
            .acknowledged(
                AcknowledgedRecord(
                    session: session, floor: Delivery(4), settledAbove: [Delivery(6), Delivery(9)])))
        records.append(
            .sessionClosed(
                SessionClosed(
                    session: session, at: Instant(milliseconds: 9), expirySeconds: 3600, discardsWill: false))
        )
        return records
    }

    static func snapshot(_ state: DurableState) -> [Record] {
        var records: [Record] = []
        state.snapshot { records.append($0) }
        return records
    }

    @Test("replay equals live, from the log alone and from a checkpoint anywhere in it")
    func replay() throws {
        let records = try Self.records()
        for checkpointAt in [nil, 1, 10, 33, records.count] {
            var disk = FaultDisk(formatted: try #require(testStore))
            let now = Instant(milliseconds: 1)
            var journal = Journal(plan: Rig.smallPlan(), recovered: try Recovery.recover(&disk) { _, _ in })
            var live = DurableState()
            func settle() throws {
                journal.tick(at: now)
                while true {
                    var operations: [DiskOperation] = []
                    journal.takeOperations(into: &operations)
                    if operations.isEmpty { return }
                    for operation in operations { journal.completed(try disk.perform(operation), at: now) }
                }
            }
            for (index, record) in records.enumerated() {
                live.apply(record, at: journal.append(record, .control, at: now))
                if index + 1 == checkpointAt { journal.beginCheckpoint(of: live, at: now) }
                try settle()
            }
            var found = DurableState()
            let log = try Recovery.recover(&disk) { found.apply($0, at: $1) }
            #expect(log.last == Position(UInt64(records.count)))
            #expect(log.checkpoints.count == (checkpointAt == nil ? 0 : 1))
            #expect(Self.snapshot(found) == Self.snapshot(live))
            #expect(Self.snapshot(found).count > 1)
        }
    }
}
