import GatewayCore
import MQTT

/// SplitMix64: the same numbers from the same seed, on every machine.
struct Dice: RandomNumberGenerator {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    mutating func below(_ limit: Int) -> Int { Int(next() % UInt64(limit)) }
    mutating func coin() -> Bool { next() & 1 == 0 }
    mutating func bytes(upTo limit: Int) -> [UInt8] {
        (0..<below(limit + 1)).map { _ in UInt8(truncatingIfNeeded: next()) }
    }
    /// Small as often as large, up to what a disk may hold.
    mutating func number() -> UInt64 { next() >> UInt64(2 + below(62)) }
    mutating func maybe<T>(_ value: (inout Dice) -> T) -> T? { coin() ? value(&self) : nil }
}

/// Random Records of every case.
enum Samples {
    static let caseCount = 22

    static func record(_ which: Int, _ dice: inout Dice, payloadMax: Int = 300) -> Record {
        switch which {
        case 0:
            return .sessionOpened(
                SessionOpened(
                    session: session(&dice),
                    owner: owner(&dice),
                    version: [.v3_1, .v3_1_1, .v5_0][dice.below(3)],
                    expirySeconds: UInt32(truncatingIfNeeded: dice.next()), isPersistent: dice.coin(),
                    will: dice.maybe { will(&$0, payloadMax) }))
        case 1:
            return .sessionClosed(
                SessionClosed(
                    session: session(&dice), at: Instant(milliseconds: dice.number()), expirySeconds: .max,
                    discardsWill: dice.coin()))
        case 2:
            return .sessionEnded(session(&dice), SessionEnd.allCases[dice.below(SessionEnd.allCases.count)])
        case 3:
            let count = dice.below(4)
            return .subscribed(session(&dice), (0..<count).map { _ in subscription(&dice) })
        case 4:
            let count = dice.below(4)
            return .unsubscribed(session(&dice), (0..<count).map { _ in filter(&dice) })
        case 5: return .message(message(&dice, payloadMax))
        case 6: return .inboundReleased(session(&dice), packet(&dice))
        case 7: return .inboundVoided(session(&dice))
        case 8: return .outboundReceived(session(&dice), Delivery(dice.number()))
        case 9:
            return .acknowledged(
                AcknowledgedRecord(
                    session: session(&dice), floor: Delivery(dice.number()), settledAbove: deliveries(&dice)))
        case 10:
            return .dropped(
                session(&dice), deliveries(&dice), DropReason.allCases[dice.below(DropReason.allCases.count)])
        case 11: return .uplinkEstablished(session(&dice))
        case 12: return .counters(nextSession: dice.number())
        case 13:
            return .retained(
                RetainedRecord(
                    message: application(&dice, payloadMax), qos: qos(&dice),
                    expiresAt: dice.maybe { Instant(milliseconds: $0.number()) },
                    storedAt: Position(dice.number())))
        case 14:
            let count = dice.below(5)
            return .inboundHeld(
                session(&dice),
                (0..<count).map { _ in
                    HeldIdentifier(packet(&dice), digest: dice.coin() ? UInt32(dice.below(1 << 31)) : 0)
                })
        case 15:
            return .assigned(
                AssignedRecord(
                    group: session(&dice), delivery: Delivery(dice.number()), member: session(&dice),
                    qos: qos(&dice), number: dice.maybe { Delivery($0.number()) },
                    source: dice.maybe {
                        .init(position: Position($0.number()), qos: qos(&$0), bytes: UInt32($0.below(9999)))
                    }))
        case 16: return .returned(session(&dice), deliveries(&dice))
        case 17:
            return .books(
                dice.maybe { SessionID($0.number() | 1) },
                Books(
                    received: dice.number(), takenOver: dice.number(), delivered: dice.number(),
                    handedOver: dice.number(),
                    dropped: DropReason.allCases.filter { _ in dice.coin() }.map { ($0, dice.number()) }))
        case 20: return .profiled(session(&dice), ["", "battery-sensor", "é"][dice.below(3)])
        case 18: return .lost(through: Position(dice.number()), count: dice.number())
        case 19:
            return .wasOff(
                OffTime(
                    after: Position(dice.number()), since: Instant(milliseconds: dice.number()),
                    milliseconds: dice.number()))
        default:
            return .queue(queue(&dice))
        }
    }

    static func any(_ dice: inout Dice, payloadMax: Int = 300) -> Record {
        record(dice.below(caseCount), &dice, payloadMax: payloadMax)
    }

    /// Bytes of which no page is like another.
    static func payload(_ seed: Int, bytes: Int) -> [UInt8] {
        var dice = Dice(UInt64(seed))
        return (0..<bytes).map { _ in UInt8(truncatingIfNeeded: dice.next()) }
    }

    /// A message of a known size for one Session.
    static func plain(
        _ text: String, to number: UInt64 = 1, delivery: UInt64? = nil, payload: [UInt8] = []
    ) -> Record {
        .message(
            MessageRecord(
                qos: .atLeastOnce, message: ApplicationMessage(topic: Array(text.utf8), payload: payload),
                targets: [
                    .init(
                        session: SessionID(number), delivery: delivery.map { Delivery($0) }, qos: .atLeastOnce
                    )
                ]))
    }

    private static func queue(_ dice: inout Dice) -> QueueRecord {
        let floor = dice.number() / 2
        let entries = (0..<dice.below(20)).map { _ in entry(&dice) }
        var place = floor + UInt64(entries.count)
        let pages = (0..<dice.below(4)).map { _ in
            let span = dice.number() >> 20
            let first = dice.number() >> 20
            let page = QueuePage(
                stretch: Stretch(
                    first: Position(first),
                    last: Position(first + dice.number() >> UInt64(dice.below(30) + 20))),
                first: Delivery(place + (dice.coin() ? 0 : dice.number() >> 20)), span: span,
                waitingCount: span == 0 ? 0 : dice.below(Int(span)), waitingBytes: Int(dice.number()))
            place = page.end.number
            return page
        }
        var delivery: UInt64 = 0
        let strays = (0..<dice.below(3)).map { _ in
            delivery += dice.number() >> 20
            return QueueRecord.Stray(delivery: Delivery(delivery), entry: entry(&dice))
        }
        return QueueRecord(
            session: session(&dice), floor: Delivery(floor), entries: entries, pages: pages,
            tail: (0..<dice.below(5)).map { _ in entry(&dice) }, strays: strays,
            unsentFrom: dice.maybe { Delivery(floor + $0.number() >> 20) })
    }

    private static func entry(_ dice: inout Dice) -> QueueRecord.Entry {
        QueueRecord.Entry(
            position: dice.maybe { Position($0.number()) }, qos: qos(&dice), isReceived: dice.coin(),
            bytes: dice.coin() ? UInt32(truncatingIfNeeded: dice.next()) : 0, isStray: dice.below(4) == 0,
            origin: dice.maybe { .init(group: session(&$0), qos: qos(&$0)) })
    }

    private static func message(_ dice: inout Dice, _ payloadMax: Int) -> MessageRecord {
        let targets = dice.below(4)
        return MessageRecord(
            publisher: dice.maybe { session(&$0) }, inboundID: dice.maybe { packet(&$0) },
            willOf: dice.maybe { session(&$0) }, qos: qos(&dice),
            retained: [.none, .store, .clear][dice.below(3)], message: application(&dice, payloadMax),
            expiresAt: dice.maybe { Instant(milliseconds: $0.number()) },
            targets: (0..<targets).map { _ in
                let identifiers = dice.below(3)
                return MessageRecord.Target(
                    session: session(&dice), delivery: dice.maybe { Delivery($0.number()) }, qos: qos(&dice),
                    retain: dice.coin(),
                    subscriptionIdentifiers: (0..<identifiers).map { _ in
                        UInt32(truncatingIfNeeded: dice.number())
                    },
                    rename: dice.maybe { TopicRename(dropping: $0.below(100), prepending: $0.bytes(upTo: 9)) }
                )
            },
            received: dice.maybe {
                .init(at: Instant(milliseconds: $0.number()), by: Position($0.coin() ? 0 : $0.number()))
            },
            moved: dice.maybe {
                .init(
                    from: session(&$0), delivery: Delivery($0.number()),
                    refusal: $0.maybe {
                        .init(
                            reason: ReasonCode(rawValue: UInt8(truncatingIfNeeded: $0.next())),
                            at: Instant(milliseconds: $0.number()))
                    })
            })
    }

    private static func application(_ dice: inout Dice, _ payloadMax: Int) -> ApplicationMessage {
        ApplicationMessage(
            topic: dice.bytes(upTo: 40), properties: dice.bytes(upTo: 20),
            payload: dice.bytes(upTo: payloadMax))
    }

    private static func will(_ dice: inout Dice, _ payloadMax: Int) -> Will {
        Will(
            message: application(&dice, payloadMax), qos: qos(&dice), retain: dice.coin(),
            delaySeconds: UInt32(truncatingIfNeeded: dice.number()),
            messageExpirySeconds: dice.maybe { UInt32(truncatingIfNeeded: $0.number()) })
    }

    private static func subscription(_ dice: inout Dice) -> Subscription {
        Subscription(
            filter: filter(&dice), maximumQoS: qos(&dice), noLocal: dice.coin(),
            retainAsPublished: dice.coin(),
            identifier: dice.maybe { UInt32(truncatingIfNeeded: $0.number()) })
    }

    private static func filter(_ dice: inout Dice) -> TopicFilter {
        let choices = ["a/b", "#", "+/x/#", "$share/g/a/+", "größe/°C", "/"].compactMap { TopicFilter($0) }
        return choices[dice.below(choices.count)]
    }

    private static func deliveries(_ dice: inout Dice) -> [Delivery] {
        let count = dice.below(6)
        return (0..<count).map { _ in Delivery(dice.number()) }
    }

    private static func owner(_ dice: inout Dice) -> SessionOwner {
        switch dice.below(5) {
        case 0: return .client(identifier: text(&dice))
        case 1: return .uplink(name: text(&dice))
        case 2: return .lane(uplink: text(&dice), number: UInt8(1 + dice.below(7)), label: text(&dice))
        case 3: return .deadLetters(uplink: text(&dice))
        default: return TopicFilter("$share/g/größe/#").map { .group($0) } ?? .uplink(name: "")
        }
    }
    private static func session(_ dice: inout Dice) -> SessionID { SessionID(dice.number()) }
    private static func packet(_ dice: inout Dice) -> PacketIdentifier {
        PacketIdentifier(rawValue: UInt16(truncatingIfNeeded: dice.number())) ?? 1
    }
    private static func qos(_ dice: inout Dice) -> QoS {
        [.atMostOnce, .atLeastOnce, .exactlyOnce][dice.below(3)]
    }
    private static func text(_ dice: inout Dice) -> String {
        ["press-12", "", "Größe 7", "漢字"][dice.below(4)]
    }
}
