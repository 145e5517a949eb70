import GatewayCore
import MQTT

/// What a cloud offers, held against what an uplink is configured for: a pure judgement for `tidegate doctor`.
package struct Prognosis: Hashable, Sendable {
    /// What would go wrong, and what to write instead.
    package struct Finding: Hashable, Sendable {
        /// Whether messages would be lost and nobody told.
        package var isLoss: Bool
        package var words: String
        /// nil where nothing in the file helps.
        package var write: String?
    }

    /// What the cloud offers, in plain words.
    package private(set) var offer: [String] = []
    package private(set) var findings: [Finding] = []

    package var losesMessages: Bool { findings.contains(where: \.isLoss) }

    /// - Parameters:
    ///   - connack: one with success.
    ///   - subscriptions: the answers to the plan's subscriptions, in order; nil where none came.
    package init(
        _ plan: UplinkPlan, routes: UplinkRoutes, connack: Connack, subscriptions: [ReasonCode?]
    ) {
        if plan.version == .v5_0 {
            judgeSession(plan, routes, connack)
            judgeQoS(routes, connack)
            judgeRetain(plan, routes, connack)
            judgeSizes(plan, connack)
            if let name = connack.assignedClientIdentifier {
                loss(
                    "the cloud calls this gateway \"\(name)\" instead of by the name it gave: its session is kept under "
                        + "another, and what it owes to the gateway is lost",
                    write: "client-id: one that this cloud takes")
            }
        } else {
            offer.append("MQTT 3.1.1, which says nothing about its limits")
            if !routes.in.isEmpty {
                mind(
                    "how long this cloud keeps what it owes to the gateway is for the cloud to say, and 3.1.1 cannot ask",
                    write: "version: 5, if the cloud speaks it")
            }
        }
        for (subscription, answer) in zip(plan.subscriptions, subscriptions) {
            judge(subscription, answer)
        }
    }

    private mutating func loss(_ words: String, write: String?) {
        findings.append(Finding(isLoss: true, words: words, write: write))
    }

    private mutating func mind(_ words: String, write: String?) {
        findings.append(Finding(isLoss: false, words: words, write: write))
    }

    // MARK: One by one

    /// [MQTT5-3.2.2.3.2]
    private mutating func judgeSession(_ plan: UplinkPlan, _ routes: UplinkRoutes, _ connack: Connack) {
        let asked = plan.sessionExpirySeconds
        let granted = connack.sessionExpirySeconds ?? asked
        offer.append("session kept for \(Self.time(granted))")
        guard granted < asked else { return }
        let carriesDown = routes.in.contains { $0.maximumQoS > .atMostOnce }
        if granted == 0 {
            let words = "the cloud forgets this gateway whenever the link breaks"
            if carriesDown {
                loss(words + ": what is published there meanwhile for the `in` routes is lost", write: nil)
            } else {
                mind(words + ": a QoS 2 message that was on its way can arrive twice", write: nil)
            }
        } else if carriesDown {
            loss(
                "the cloud keeps its session for \(Self.time(granted)) and not \(Self.time(asked)): after a longer outage "
                    + "what was published there for the `in` routes is lost",
                write: "session-expiry: \(Self.time(granted)), if that is as it must be")
        } else {
            mind(
                "the cloud keeps its session for \(Self.time(granted)) and not \(Self.time(asked)): after a longer outage "
                    + "a QoS 2 message that was on its way can arrive twice",
                write: "session-expiry: \(Self.time(granted))")
        }
    }

    /// [MQTT5-3.2.2.3.4]
    private mutating func judgeQoS(_ routes: UplinkRoutes, _ connack: Connack) {
        let maximum = connack.maximumQoS ?? .exactlyOnce
        offer.append("QoS up to \(maximum.rawValue)")
        let asked = routes.out.map(\.maximumQoS).max() ?? .atMostOnce
        guard asked > maximum else { return }
        if maximum == .atMostOnce {
            loss(
                "the cloud takes QoS 0 only: what leaves while the link breaks is lost, and nobody notices",
                write: "qos: 0 at every route with out, if that is as it must be")
        } else {
            mind(
                "the cloud takes QoS 1 at most: what is published here at QoS 2 can arrive there twice",
                write: "qos: 1 at every route with out")
        }
    }

    /// [MQTT5-3.2.2.3.5]
    private mutating func judgeRetain(_ plan: UplinkPlan, _ routes: UplinkRoutes, _ connack: Connack) {
        guard connack.retainAvailable == false else { return offer.append("retained messages") }
        offer.append("no retained messages")
        if routes.out.contains(where: \.carriesRetain) {
            mind(
                "the cloud retains nothing: who subscribes there later does not see the last value",
                write: "retain: false at every route with out")
        }
        if plan.status?.retain == true {
            mind(
                "the status is not retained there: who subscribes later does not see it",
                write: "retain: false under status")
        }
    }

    private mutating func judgeSizes(_ plan: UplinkPlan, _ connack: Connack) {
        if let bytes = connack.maximumPacketSize {
            offer.append("packets up to \(bytes) bytes")
            if plan.maximumPacketSize.map({ bytes < $0 }) ?? true {
                mind(
                    "messages that make a packet of more than \(bytes) bytes are taken here and not there: they are kept "
                        + "as dead letters",
                    write: "packet-size: \(bytes) B or less under limits, so that publishers are told")
            }
        } else {
            offer.append("packets of any size")
        }
        offer.append("\(connack.receiveMaximum ?? .max) messages in flight")
        offer.append("\(connack.topicAliasMaximum ?? 0) topic aliases")
        if let seconds = connack.serverKeepAliveSeconds {
            offer.append("keep-alive of \(seconds)s, as it asks")
        }
    }

    private mutating func judge(_ subscription: UplinkPlan.Subscription, _ answer: ReasonCode?) {
        let filter = String(decoding: subscription.filter.bytes, as: UTF8.self)
        guard let answer else {
            return loss(
                "the cloud does not answer the subscription to \"\(filter)\": nothing may come from there",
                write: nil)
        }
        guard !answer.isError else {
            return loss(
                "the cloud refuses the subscription to \"\(filter)\" (reason code \(answer.rawValue)): nothing will come "
                    + "from there",
                write: "another filter, or give this client the right to subscribe to it")
        }
        guard answer.rawValue < subscription.maximumQoS.rawValue else { return }
        if answer.rawValue == 0 {
            loss(
                "the cloud sends \"\(filter)\" at QoS 0 only: what it sends while the link breaks is lost",
                write: "qos: 0 at this route, if that is as it must be")
        } else {
            mind(
                "the cloud sends \"\(filter)\" at QoS 1 at most: what is published there at QoS 2 can arrive twice",
                write: "qos: 1 at this route")
        }
    }

    /// In the largest unit that leaves no remainder, as the configuration has it.
    private static func time(_ seconds: UInt32) -> String {
        if seconds == .max { return "ever" }
        for (unit, name) in [(86_400, "d"), (3600, "h"), (60, "m")] as [(UInt32, String)]
        where seconds >= unit && seconds % unit == 0 {
            return "\(seconds / unit)\(name)"
        }
        return "\(seconds)s"
    }
}
