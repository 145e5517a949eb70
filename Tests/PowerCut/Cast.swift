import MQTT
import Workbench

/// Who takes part, and how they behave while the disk is recorded.
struct Cast {
    struct Stream {
        let topic: String
        let qos: QoS
        var isRetained = false
        /// In bytes, the least and the most.
        var payload = 40...400
    }

    struct Role {
        enum Presence {
            case always
            /// Only until it is subscribed.
            case toSubscribe
            /// Half of the time, in turns of so many seconds.
            case turns(seconds: Double)
            /// Only after the cut.
            case afterwards
        }

        let name: String
        var version = ProtocolVersion.v3_1_1
        var presence = Presence.always
        var appearsAtSecond = 0.0
        /// Streams it publishes, by number, and how many messages of each a second.
        var streams: [Int] = []
        var perSecond = 0.0
        /// Messages that may await their acknowledgement at once.
        var window = 20
        var subscriptions: [(filter: String, qos: QoS)] = []
        /// It is a client of the cloud.
        var isAtCloud = false
    }

    let streams: [Stream]
    let roles: [Role]

    /// - Parameter hasCloud: whether somebody waits at the cloud for what the uplink owes it.
    init(hasCloud: Bool, _ random: inout SplitMix64) {
        streams = [
            Stream(topic: "plant/a", qos: .atLeastOnce), Stream(topic: "plant/b", qos: .exactlyOnce),
            Stream(topic: "plant/c", qos: .atLeastOnce, payload: 40...12_000),
            Stream(topic: "plant/d", qos: .exactlyOnce, payload: 40...12_000),
            Stream(topic: "live/e", qos: .atLeastOnce), Stream(topic: "live/f", qos: .exactlyOnce),
            Stream(topic: "state/g", qos: .atLeastOnce, isRetained: true),
            Stream(topic: "state/h", qos: .exactlyOnce, isRetained: true),
        ]
        func rate() -> Double { .random(in: 4...40, using: &random) }
        var roles = [
            Role(name: "away", presence: .toSubscribe, subscriptions: [("plant/#", .exactlyOnce)]),
            Role(
                name: "away5", version: .v5_0, presence: .toSubscribe,
                subscriptions: [("plant/+", .atLeastOnce)]),
            Role(name: "here", subscriptions: [("plant/#", .exactlyOnce), ("live/#", .exactlyOnce)]),
            Role(name: "here5", version: .v5_0, subscriptions: [("live/+", .exactlyOnce)]),
            Role(
                name: "turns", presence: .turns(seconds: .random(in: 0.1...0.5, using: &random)),
                subscriptions: [("plant/#", .exactlyOnce)]),
            Role(
                name: "turns5", version: .v5_0,
                presence: .turns(seconds: .random(in: 0.1...0.5, using: &random)),
                subscriptions: [("plant/a", .exactlyOnce), ("plant/b", .exactlyOnce)]),
            Role(
                name: "reader", version: .v5_0, presence: .afterwards,
                subscriptions: [("state/#", .exactlyOnce)]),
            Role(name: "sensor-ab", streams: [0, 1], perSecond: rate()),
            Role(name: "sensor-cd", version: .v5_0, streams: [2, 3], perSecond: rate()),
            Role(name: "sensor-ef", version: .v5_0, streams: [4, 5], perSecond: rate()),
            Role(name: "sensor-gh", streams: [6, 7], perSecond: rate()),
        ]
        for number in 1...6 {
            roles.append(
                Role(
                    name: "late-\(number)", version: number % 2 == 0 ? .v5_0 : .v3_1_1,
                    presence: number % 3 == 0 ? .always : .toSubscribe,
                    appearsAtSecond: .random(in: 0.5...4, using: &random),
                    subscriptions: [("plant/\(number % 2 == 0 ? "b" : "a")", .exactlyOnce)]))
        }
        if hasCloud {
            roles.append(
                Role(
                    name: "observer", version: .v5_0, presence: .afterwards,
                    subscriptions: [("plant/#", .exactlyOnce)], isAtCloud: true))
        }
        self.roles = roles
    }

    /// What the uplink carries, as a user would write it.
    static let routes = ["{ out: \"plant/#\" }"]

    /// The QoS at which a role gets a stream; nil when it does not.
    func qos(of stream: Int, for role: Role) -> QoS? {
        let topic = Array(streams[stream].topic.utf8)
        let granted = role.subscriptions.filter { TopicFilter($0.filter)?.matches(topic) == true }.map(\.qos)
        return granted.max().map { min($0, streams[stream].qos) }
    }
}
