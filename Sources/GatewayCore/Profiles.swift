import MQTT

/// What is known of a client when its profile is chosen.
package struct DeviceNames: Hashable, Sendable {
    package var clientIdentifier: String
    package var username: String?
    package var certificate: CertificateNames?
    package var listener: Int

    package init(
        clientIdentifier: String, username: String? = nil, certificate: CertificateNames? = nil,
        listener: Int = 0
    ) {
        self.clientIdentifier = clientIdentifier
        self.username = username
        self.certificate = certificate
        self.listener = listener
    }
}

extension DeviceMatch {
    /// Whether all that is given agrees. What a client does not have agrees with nothing, not even with `*`.
    ///
    /// - Complexity: O(bytes) for each pattern; nothing is allocated
    package func agrees(with device: DeviceNames) -> Bool {
        agrees(.listener, with: device) && agrees(.clientIdentifier, with: device)
            && agrees(.username, with: device) && agrees(.certificateSubject, with: device)
            && agrees(.certificateIssuer, with: device)
    }

    /// The parts that are given and do not agree, in the order of this enumeration.
    package func disagreeing(with device: DeviceNames) -> [Part] {
        Part.allCases.filter { !agrees($0, with: device) }
    }

    package enum Part: CaseIterable, Sendable {
        case listener
        case clientIdentifier
        case username
        case certificateSubject
        case certificateIssuer
    }

    private func agrees(_ part: Part, with device: DeviceNames) -> Bool {
        switch part {
        case .listener: listener.map { $0 == device.listener } ?? true
        case .clientIdentifier: Self.agrees(clientIdentifier, device.clientIdentifier)
        case .username: Self.agrees(username, device.username)
        case .certificateSubject: Self.agrees(certificateSubject, device.certificate?.subject)
        case .certificateIssuer: Self.agrees(certificateIssuer, device.certificate?.issuer)
        }
    }

    /// What is not given agrees with everything.
    private static func agrees(_ glob: Glob?, _ name: String?) -> Bool {
        guard let glob else { return true }
        return name.map { glob.matches($0) } ?? false
    }
}

/// The profiles of a plan, ready for use.
struct Profiles {
    /// In the order in which they are tried; the last is the default, the built-in one where the plan has none.
    let all: [ReadyProfile]
    /// The plan has none: nothing of them is kept anywhere.
    let isEmpty: Bool
    private let table: MatchTable

    init(_ plan: borrowing GatewayPlan) {
        isEmpty = plan.profiles.isEmpty
        var profiles = plan.profiles
        if profiles.last?.isDefault != true { profiles.append(.builtIn) }
        let gateway = plan.gateway
        all = profiles.enumerated().map { ReadyProfile($1, place: $0, gateway: gateway) }
        table = MatchTable(profiles.map(\.matches))
    }

    var standard: ReadyProfile { all[all.count - 1] }

    /// The first one that matches.
    ///
    /// - Complexity: O(profiles); nothing is allocated
    func profile(of device: DeviceNames) -> ReadyProfile {
        var next = 0
        while let found = table.candidate(for: device, from: next) {
            let ready = all[found.profile]
            if ready.profile.matches[found.match].agrees(with: device) { return ready }
            next = found.entry + 1
        }
        return standard
    }

    /// Of a Session that is away; the default where there is none of that name any more.
    ///
    /// - Complexity: O(profiles)
    func profile(named name: String) -> ReadyProfile {
        // By its bytes: Strings that are equal by Unicode's rules may be different names.
        all.first { $0.profile.name.utf8.elementsEqual(name.utf8) } ?? standard
    }

    /// What a Session keeps of it; nothing where there are no profiles.
    func durableName(of profile: ReadyProfile) -> String { isEmpty ? "" : profile.profile.name }
}

/// A profile of the plan in force.
final class ReadyProfile: Sendable {
    let profile: DeviceProfile
    let place: Int
    private let gateway: String
    /// Where the states of its devices are, beside other topics.
    let stateFilter: TopicFilter?
    /// Of the variables that are a client's own.
    private let usesClientIdentifier: Bool
    private let usesUsername: Bool
    /// What all get where no topic depends on who it is.
    private let common: Treatment?

    init(_ profile: DeviceProfile, place: Int, gateway: String) {
        self.profile = profile
        self.place = place
        self.gateway = gateway
        let variables = profile.templates.reduce(into: Set()) { $0.formUnion($1.variables) }
        stateFilter = profile.liveness?.stateTopic.filter(profile: profile.name, gateway: gateway)
        usesClientIdentifier = variables.contains(.clientIdentifier)
        usesUsername = variables.contains(.username)
        common =
            usesClientIdentifier || usesUsername
            ? nil
            : Treatment(
                profile, place: place,
                TopicVariables(clientIdentifier: "", username: nil, profile: profile.name, gateway: gateway))
    }

    /// Why a client with such names cannot be treated so, for it could name itself into the topics of others.
    ///
    /// - Complexity: O(bytes)
    func refusal(of device: DeviceNames) -> ReasonCode? {
        // Who leaves it to the gateway gets one that is safe.
        if usesClientIdentifier, !device.clientIdentifier.isEmpty,
            !TopicVariables.isSafe(device.clientIdentifier)
        {
            return .clientIdentifierNotValid
        }
        if usesUsername, device.username.map(TopicVariables.isSafe) != true { return .badUserNameOrPassword }
        return nil
    }

    /// Where a client that is away may subscribe; nil where that is everywhere, or depends on its user name: that is known
    /// again when it comes back, before it is sent anything.
    func subscribeRights(ofAbsent client: String) -> RightsInForce? {
        rightsOfAbsent(client, profile.subscribe)
    }

    /// Whether the Will of a client that is away, which was allowed when it came, still is. What depends on its user
    /// name is left at that.
    func allowsWill(to topic: ArraySlice<UInt8>, ofAbsent client: String) -> Bool {
        rightsOfAbsent(client, profile.publish)?.allows(topic: topic) ?? true
    }

    private func rightsOfAbsent(_ client: String, _ rights: TopicRights) -> RightsInForce? {
        guard rights != TopicRights(), !rights.variables.contains(.username) else { return nil }
        return RightsInForce(
            rights,
            TopicVariables(
                clientIdentifier: client, username: nil, profile: profile.name, gateway: gateway))
    }

    /// Whether the state of any device may be told there.
    func mayTellState(at topic: ArraySlice<UInt8>) -> Bool {
        profile.liveness?.stateTopic.isPossible(topic, profile: profile.name, gateway: gateway) ?? false
    }

    /// How one client is treated.
    ///
    /// - Complexity: O(topics in the profile) where one depends on who it is, else O(1)
    func treatment(clientIdentifier: String, username: String?) -> Treatment {
        common
            ?? Treatment(
                profile, place: place,
                TopicVariables(
                    clientIdentifier: clientIdentifier, username: username, profile: profile.name,
                    gateway: gateway))
    }
}

extension DeviceProfile {
    /// All topics in it.
    fileprivate var templates: [TopicTemplate] {
        (publish.allow ?? []) + publish.deny + (subscribe.allow ?? []) + subscribe.deny + keepsLastValue
            + reportByException.map(\.filter) + (liveness.map { [$0.stateTopic] } ?? [])
    }

    /// Instead of a client's own.
    func keepAliveSeconds(for asked: UInt16) -> UInt16 {
        var seconds = asked
        // 0 is the longest there is.
        if let least = keepAliveSecondsMin, seconds > 0 { seconds = max(seconds, least) }
        if let most = keepAliveSecondsMax { seconds = seconds == 0 ? most : min(seconds, most) }
        return seconds
    }
}

/// How one client is treated: its profile, with its own names in the topics.
final class Treatment: Sendable {
    let profile: DeviceProfile
    /// Of the profile among all.
    let place: Int
    let publish: RightsInForce
    let subscribe: RightsInForce
    let keepsLastValue: [TopicFilter]
    /// With their place in the profile.
    let exceptions: [(filter: TopicFilter, place: Int)]
    let stateTopic: [UInt8]?
    let aspects: PublishAspects

    init(_ profile: DeviceProfile, place: Int, _ variables: TopicVariables) {
        self.profile = profile
        self.place = place
        publish = RightsInForce(profile.publish, variables)
        subscribe = RightsInForce(profile.subscribe, variables)
        keepsLastValue = profile.keepsLastValue.compactMap { $0.filter(variables) }
        exceptions = profile.reportByException.enumerated().compactMap { place, rule in
            rule.filter.filter(variables).map { ($0, place) }
        }
        stateTopic = profile.liveness?.stateTopic.expanded(variables)
        aspects = PublishAspects(profile)
    }
}

extension TopicRights {
    fileprivate var variables: Set<TopicTemplate.Variable> {
        ((allow ?? []) + deny).reduce(into: []) { $0.formUnion($1.variables) }
    }
}

/// `TopicRights` of one client.
struct RightsInForce: Sendable {
    /// nil where everything is allowed that is not denied.
    let allow: [TopicFilter]?
    let deny: [TopicFilter]
    /// A rule of `deny` cannot be told, because the client's name makes it too long: nothing is allowed then.
    private let isClosed: Bool

    init(_ rights: TopicRights, _ variables: TopicVariables) {
        allow = rights.allow?.compactMap { $0.filter(variables) }
        deny = rights.deny.compactMap { $0.filter(variables) }
        isClosed = deny.count < rights.deny.count
    }

    var allowsEverything: Bool { allow == nil && deny.isEmpty && !isClosed }

    /// Whether a message of this topic may be published, or received.
    ///
    /// - Complexity: O(rules · bytes)
    func allows(topic: ArraySlice<UInt8>) -> Bool {
        !isClosed && !deny.contains { $0.denies(topic: topic) }
            && allow?.contains { $0.matches(topic) } ?? true
    }

    /// - Complexity: O(rules · bytes)
    func allows(subscribingTo filter: TopicFilter) -> Bool {
        !isClosed && !deny.contains { $0.denies(subscribingTo: filter) }
            && allow?.contains { $0.covers(filter) } ?? true
    }
}

extension TopicTemplate {
    /// nil where a variable stands for nothing: its client was refused.
    func filter(_ variables: TopicVariables) -> TopicFilter? {
        expanded(variables).flatMap { TopicFilter($0) }
    }
}

/// What each PUBLISH of a client is to be looked at for; nothing, unless its profile says so.
struct PublishAspects: OptionSet {
    let rawValue: UInt8

    static let qos = PublishAspects(rawValue: 1)
    static let rights = PublishAspects(rawValue: 2)
    static let rate = PublishAspects(rawValue: 4)
    static let expiry = PublishAspects(rawValue: 8)
    static let uplink = PublishAspects(rawValue: 16)
    static let durability = PublishAspects(rawValue: 32)
    static let exceptions = PublishAspects(rawValue: 64)
    static let lastValue = PublishAspects(rawValue: 128)

    /// Before it is taken.
    static let admission: PublishAspects = [.qos, .rights, .rate, .expiry]
    /// While it is.
    static let keeping: PublishAspects = [.uplink, .durability, .exceptions, .lastValue]

    init(rawValue: UInt8) { self.rawValue = rawValue }

    init(_ profile: DeviceProfile) {
        var aspects: PublishAspects = []
        if profile.maximumQoS != nil { aspects.insert(.qos) }
        if profile.publish != TopicRights() { aspects.insert(.rights) }
        if profile.rate != nil { aspects.insert(.rate) }
        if profile.messageExpiry != nil { aspects.insert(.expiry) }
        if profile.uplink != UplinkChoice() { aspects.insert(.uplink) }
        if profile.durability != nil { aspects.insert(.durability) }
        if !profile.reportByException.isEmpty { aspects.insert(.exceptions) }
        if !profile.keepsLastValue.isEmpty { aspects.insert(.lastValue) }
        self = aspects
    }
}
