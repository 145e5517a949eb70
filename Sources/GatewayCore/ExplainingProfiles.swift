import MQTT

// Which profile a client gets and why, without connecting anything: for a command and for whoever reads its answer.

/// What would be decided about a client.
package struct ProfileExplanation: Hashable, Sendable {
    package var profile: DeviceProfile
    /// Which of its matches agreed; nil for the default, which has none.
    package var match: Int?
    /// The profiles that were tried before and did not match, in their order.
    package var passedOver: [PassedOver]
    /// Why the client would be refused with CONNECT; nil when it would not.
    package var refusal: Refusal?
    /// Empty when it would be refused.
    package var topics: [TopicRuling]

    /// A profile that a client does not belong to.
    package struct PassedOver: Hashable, Sendable {
        package var name: String
        /// Of each of its matches, the parts that did not agree.
        package var disagreeing: [[DeviceMatch.Part]]
    }

    /// The profile has a topic with a variable for which the client has no value that is safe.
    package struct Refusal: Hashable, Sendable {
        package var reason: ReasonCode
        package var variable: TopicTemplate.Variable
        /// nil where the client has none.
        package var value: String?
    }

    /// What a client may do with a topic.
    package struct TopicRuling: Hashable, Sendable {
        package var topic: String
        /// nil where it is no Topic Name, because of wildcards say.
        package var publish: Ruling?
        /// nil where it is no Topic Filter.
        package var subscribe: Ruling?
        /// It would be kept as the last value of its topic.
        package var isKept: Bool
        /// The rule of its reports by exception, by its place.
        package var exception: Int?
    }

    package enum Ruling: Hashable, Sendable {
        /// By a rule of `allow`, or with nil because there are no rules to allow anything.
        case allowed(by: TopicTemplate?)
        case denied(by: TopicTemplate)
        /// There are rules that allow something, and none of them this.
        case notAllowed

        package var isAllowed: Bool {
            switch self {
            case .allowed: true
            case .denied, .notAllowed: false
            }
        }
    }
}

extension GatewayPlan {
    /// Which profile a client would get, why, and what it could do with some topics.
    ///
    /// - Complexity: O(profiles + topics · rules)
    package func explain(_ device: DeviceNames, topics: [String] = []) -> ProfileExplanation {
        let profiles = Profiles(self)
        let ready = profiles.profile(of: device)
        let passedOver = profiles.all[..<ready.place].map { other in
            ProfileExplanation.PassedOver(
                name: other.profile.name,
                disagreeing: other.profile.matches.map { $0.disagreeing(with: device) })
        }
        var explanation = ProfileExplanation(
            profile: ready.profile, match: ready.profile.matches.firstIndex { $0.agrees(with: device) },
            passedOver: passedOver, refusal: nil, topics: [])
        if let reason = ready.refusal(of: device) {
            let isUsername = reason == .badUserNameOrPassword
            explanation.refusal = ProfileExplanation.Refusal(
                reason: reason, variable: isUsername ? .username : .clientIdentifier,
                value: isUsername ? device.username : device.clientIdentifier)
            return explanation
        }
        let variables = TopicVariables(
            clientIdentifier: device.clientIdentifier, username: device.username,
            profile: ready.profile.name, gateway: gateway)
        explanation.topics = topics.map { ready.profile.ruling(on: $0, variables) }
        return explanation
    }
}

extension DeviceProfile {
    fileprivate func ruling(
        on topic: String, _ variables: TopicVariables
    ) -> ProfileExplanation.TopicRuling {
        let bytes = Array(topic.utf8)
        let filter = TopicFilter(bytes)
        let isName = TopicName.isValid(bytes)
        func matches(_ template: TopicTemplate) -> Bool {
            isName && template.filter(variables)?.matches(bytes) == true
        }
        return ProfileExplanation.TopicRuling(
            topic: topic,
            publish: isName
                ? publish.ruling(variables) {
                    $0.matches(bytes)
                } denying: {
                    $0.denies(topic: bytes[...])
                } : nil,
            subscribe: filter.map { filter in
                subscribe.ruling(variables) {
                    $0.covers(filter)
                } denying: {
                    $0.denies(subscribingTo: filter)
                }
            },
            isKept: keepsLastValue.contains(where: matches),
            exception: reportByException.firstIndex { matches($0.filter) })
    }
}

extension TopicRights {
    fileprivate func ruling(
        _ variables: TopicVariables, allowing: (TopicFilter) -> Bool, denying: (TopicFilter) -> Bool
    ) -> ProfileExplanation.Ruling {
        if let rule = deny.first(where: { $0.filter(variables).map(denying) == true }) {
            return .denied(by: rule)
        }
        guard let allow else { return .allowed(by: nil) }
        let rule = allow.first { $0.filter(variables).map(allowing) == true }
        return rule.map { .allowed(by: $0) } ?? .notAllowed
    }
}

/// A client as `tidegate clients` shows it.
package struct ClientSummary: Hashable, Sendable {
    package var clientIdentifier: String
    /// Empty where there are no profiles.
    package var profile: String
    package var isConnected: Bool
    /// It outlives its connection.
    package var isPersistent: Bool
    package var version: ProtocolVersion
    /// Of the connection; nil where there is none or it came without.
    package var username: String?
    package var listener: Int?
    /// Messages waiting for it, those in flight included, and their bytes.
    package var queuedMessages: Int
    package var queuedBytes: Int
    package var bounds: QueueBounds?
    package var subscriptions: Int
    /// Those of them that its profile does not allow it any more.
    package var restingSubscriptions: Int
    /// When its connection ended, on the gateway's clock; nil while it is here, or when the power failed meanwhile.
    package var closedAt: Instant?
}

extension Gateway {
    /// Every client with a Session, by Client Identifier.
    ///
    /// - Complexity: O(Sessions · log Sessions)
    package var clients: [ClientSummary] {
        let found = state.sessionIDs.compactMap { id -> ClientSummary? in
            guard let session = state[id], case .client(let identifier) = session.owner else { return nil }
            let connection: Connection? =
                if case .client(let peer) = session.flow?.peer { connections[peer] } else { nil }
            return ClientSummary(
                clientIdentifier: identifier, profile: session.profile, isConnected: connection != nil,
                isPersistent: session.isPersistent, version: session.version,
                username: connection?.userName.value, listener: connection?.listener,
                queuedMessages: session.queue.waitingCount, queuedBytes: session.queue.waitingBytes,
                bounds: session.bounds, subscriptions: session.subscriptions.count,
                restingSubscriptions: session.restingCount, closedAt: session.closedAt)
        }
        return found.sorted { $0.clientIdentifier.utf8.lexicographicallyPrecedes($1.clientIdentifier.utf8) }
    }

    /// What each profile in force has done, in the order in which they are tried; the last is the default. Empty where there
    /// are no profiles.
    package var profileUse: [(name: String, counts: ProfileCounts)] {
        profiles.isEmpty ? [] : profiles.all.map { ($0.profile.name, profileCounts[$0.place]) }
    }
}
