import MQTT
import Testing

@testable import Uplink

/// MQTT 5 §4.3, §4.4 and MQTT 3.1.1 §4.3, §4.4 from the local publisher to the cloud and back, with the real core,
/// ledger and engine: the line is lost after every single packet, and after every packet of the next connection.
@Suite("Nothing lost, nothing doubled: cut anywhere")
struct CutAnywhereTests {
    static let versions: [ProtocolVersion] = [.v3_1_1, .v5_0]
    static let up = ["a1", "a2", "b2", "b1"]
    static let down = ["x2", "x1", "y1", "y2"]

    /// The last character is the QoS.
    private static func qos(_ text: String) -> QoS { text.hasSuffix("2") ? .exactlyOnce : .atLeastOnce }

    private static func established(_ version: ProtocolVersion, _ manner: ModelCloud.Manner) throws
        -> BridgeModel
    {
        var model = BridgeModel(version, manner)
        try model.connects()
        return model
    }

    /// What every test gives to both sides while the line is down.
    private static func fill(_ model: inout BridgeModel) {
        for text in up { model.publishes(text, qos(text)) }
        for text in down { model.cloudPublishes(text, qos(text)) }
    }

    private static func count(_ text: String, _ texts: [String]) -> Int { texts.count { $0 == text } }

    /// QoS 1 at least once, QoS 2 exactly once, and nothing open at the end.
    private static func check(_ model: borrowing BridgeModel, _ cuts: String) {
        for (texts, got) in [(up, model.cloud.delivered), (down, model.received)] {
            for text in texts {
                let times = count(text, got)
                #expect(
                    qos(text) == .exactlyOnce ? times == 1 : times >= 1, "\(text) \(times) times, cut \(cuts)"
                )
            }
        }
        #expect(model.cloud.isAtRest && model.cloud.surprises == [], "cut \(cuts)")
    }

    @Test("[MQTT5-4.3.3-1] [MQTT311-4.3.3-1] By the rules, with two cuts", arguments: versions)
    func faithful(version: ProtocolVersion) throws {
        var whole = try Self.established(version, .faithful)
        whole.loses()
        Self.fill(&whole)
        let packets = try whole.connects()
        Self.check(whole, "never")
        // CONNECT and CONNACK, SUBSCRIBE and SUBACK, and 2 or 4 packets for each message.
        #expect(packets >= 4 + 4 * 2 + 4 * 4)
        for first in 0..<packets {
            for second in [nil, 0, 2, 5, 9, 14, 20] as [Int?] {
                var model = try Self.established(version, .faithful)
                model.loses()
                Self.fill(&model)
                try model.connects(passing: first)
                if let second { try model.connects(passing: second) }
                try model.connects()
                Self.check(model, "after \(first) and \(second ?? -1)")
            }
        }
    }

    @Test(
        "[MQTT5-4.6.0-2] Without a cut each side hears the other's messages of one QoS in order",
        arguments: versions)
    func order(version: ProtocolVersion) throws {
        var model = try Self.established(version, .faithful)
        Self.fill(&model)
        model.loses()
        try model.connects()
        #expect(model.cloud.delivered == Self.up)
        #expect(model.received.filter { $0.hasSuffix("2") } == ["x2", "y2"])
        #expect(model.received.filter { $0.hasSuffix("1") } == ["x1", "y1"])
    }

    @Test(
        "A cloud that says everything twice, or answers in another order", arguments: versions,
        [ModelCloud.Manner.repeats, .reorders])
    func odd(version: ProtocolVersion, manner: ModelCloud.Manner) throws {
        for first in 0..<40 {
            var model = try Self.established(version, manner)
            model.loses()
            Self.fill(&model)
            try model.connects(passing: first)
            try model.connects()
            Self.check(model, "after \(first)")
        }
    }

    @Test(
        "Session Present 0: what the cloud forgot is sent as new, and what it took is not lost on our side",
        arguments: versions)
    func forgets(version: ProtocolVersion) throws {
        for first in 0..<40 {
            var model = try Self.established(version, .forgets)
            for text in Self.up { model.publishes(text, Self.qos(text)) }
            model.loses()
            try model.connects(passing: first)
            try model.connects()
            for text in Self.up {
                // A message that it took and of which it forgot that it did comes again: it cannot be known.
                #expect(Self.count(text, model.cloud.delivered) >= 1, "\(text), cut after \(first)")
            }
            #expect(model.cloud.isAtRest)
        }
    }

    @Test(
        "Session Present 0: old inbound identifiers are void, new messages under them are not taken for old ones"
    )
    func voidIdentifiers() throws {
        var model = try Self.established(.v5_0, .forgets)
        model.cloudPublishes("x2", .exactlyOnce)
        // CONNECT, CONNACK, SUBSCRIBE, SUBACK …, and PUBLISH without what follows.
        model.loses()
        try model.connects(passing: 5)
        model.cloudPublishes("y2", .exactlyOnce)
        try model.connects()
        model.cloudPublishes("z2", .exactlyOnce)
        try model.connects()
        #expect(Set(model.received).isSubset(of: ["x2", "y2", "z2"]))
        #expect(Set(model.received).count == model.received.count)
    }

    @Test(
        "A cloud that answers nothing is left, and what it owes is sent to the next connection",
        arguments: versions)
    func silent(version: ProtocolVersion) throws {
        var model = BridgeModel(version, .silent)
        for text in Self.up { model.publishes(text, Self.qos(text)) }
        try model.connects()
        model.passes(seconds: 59)
        #expect(!model.losses.contains(.noAcknowledgement))
        model.passes(seconds: 2)
        #expect(model.losses.last == .noAcknowledgement)
        model.cloudWakesUp()
        try model.connects()
        for text in Self.up {
            let times = Self.count(text, model.cloud.delivered)
            #expect(Self.qos(text) == .exactlyOnce ? times == 1 : times >= 1)
        }
        #expect(model.cloud.isAtRest)
    }

    @Test("[MQTT5-4.3.3-4] A message the cloud refuses is not sent again, and holds up no other")
    func refused() throws {
        for first in 0..<30 {
            var model = try Self.established(.v5_0, .refuses)
            model.loses()
            for text in ["no1", "a2", "no2", "b1"] { model.publishes(text, Self.qos(text)) }
            try model.connects(passing: first)
            try model.connects()
            #expect(Self.count("a2", model.cloud.delivered) == 1)
            #expect(Self.count("b1", model.cloud.delivered) >= 1)
            #expect(!model.cloud.delivered.contains { $0.hasPrefix("no") })
            // Nothing is left that a further connection would send.
            model.loses()
            let before = model.cloud.delivered
            try model.connects()
            #expect(model.cloud.delivered == before)
        }
    }
}
