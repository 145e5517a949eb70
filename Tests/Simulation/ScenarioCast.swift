import GatewayCore
import MQTT
import Uplink

// Who is there in a scenario, and how they behave.
extension Scenario {
    /// In the order of the cast; the cloud comes behind them.
    var clients: [ClientPlan] {
        var dice = Dice(seed ^ 0xCA57)
        var author: UInt16 = 0
        func client(_ name: String, _ change: (inout ClientPlan, inout Dice) -> Void) -> ClientPlan {
            author += 1
            var own = dice.fork()
            var plan = ClientPlan(name, author: author)
            plan.keepAliveSeconds = [0, 5, 30][own.below(3)]
            plan.patience = 8_000_000
            if family != .elision {
                plan.answersWithin = [0, 20_000, 400_000][own.below(3)]
                plan.staysFor = own.below(3) == 0 ? nil : UInt64(4_000_000 + own.below(30_000_000))
                plan.staysAwayFor = UInt64([300_000, 3_000_000, 20_000_000][own.below(3)])
            } else if seed % 4 == 1 {
                // Not always soon enough, so that some of it is written.
                plan.answersWithin = 400_000
                plan.staysFor = own.coin() ? nil : 10_000_000
            }
            plan.version = own.below(3) == 0 ? .v3_1_1 : .v5_0
            // Most have everything at once, and a few leave something of it lying in every segment.
            if family == .compaction { plan.staysAwayFor = 300_000 }
            change(&plan, &own)
            return plan
        }
        return [
            client("press") { $0.publishing = publishing("plant/press", &$1) },
            client("meter") { $0.publishing = publishing("plant/meter", &$1) },
            client("pump") { plan, dice in
                plan.publishing = publishing("plant/pump", &dice)
                plan.expirySeconds = dice.coin() ? 0 : .max
                plan.will = ClientPlan.WillPlan("plant/pump/gone", dice.coin() ? .atLeastOnce : .exactlyOnce)
                plan.will?.delaySeconds = [0, 5][dice.below(2)]
                plan.will?.retain = dice.coin()
            },
            client("archive") { plan, dice in
                plan.subscriptions = [subscription("plant/#", .exactlyOnce)]
                plan.receiveMaximum = [nil, 4, 1][dice.below(3)]
                if family == .full {
                    plan.staysFor = 20_000_000
                    plan.staysAwayFor = 20_000_000
                }
            },
            client("screen") { plan, dice in
                plan.subscriptions = [
                    subscription("plant/+/a", .atLeastOnce), subscription("plant/press/#", .exactlyOnce),
                ]
                if dice.coin() { plan.changesSubscriptionsEvery = 6_000_000 }
                if dice.below(3) == 0 { plan.cleanStartPercent = 20 }
                if family == .compaction { plan.staysAwayFor = 60_000_000 }
            },
            client("left") {
                $0.subscriptions = [subscription("$share/work/plant/#", .exactlyOnce)]; _ = $1.coin()
            },
            client("right") {
                $0.subscriptions = [subscription("$share/work/plant/#", .exactlyOnce)]; _ = $1.coin()
            },
            client("valve") { plan, dice in
                plan.subscriptions = [subscription("commands/#", .exactlyOnce)]
                if dice.below(3) == 0 { plan.expirySeconds = 20 }
                if family == .compaction { plan.staysAwayFor = 60_000_000 }
            },
            client("visitor") { plan, dice in
                plan.expirySeconds = 0
                plan.subscriptions = [subscription("plant/meter/#", .atLeastOnce)]
                plan.publishing = publishing("plant/visitor", &dice)
            },
            client("vandal") { plan, dice in
                plan.publishing = publishing("rude/vandal", &dice)
                plan.subscriptions = [subscription("plant/#", .exactlyOnce)]
                plan.manners = ClientPlan.Rudeness.allCases.filter { _ in dice.below(3) == 0 }
                if plan.manners.isEmpty { plan.manners = [.repeats] }
            },
            // Subscribes, unsubscribes, comes and goes all the time: what it is told must hold through a power cut.
            client("browser") { plan, dice in
                plan.subscriptions = [
                    subscription("plant/press/a", .exactlyOnce), subscription("plant/press/b", .atLeastOnce),
                    subscription("plant/meter/#", .exactlyOnce), subscription("plant/+/b", .atLeastOnce),
                    subscription("plant/pump/+", .exactlyOnce),
                ]
                plan.changesSubscriptionsEvery = 300_000
                plan.staysFor = 2_500_000
                plan.staysAwayFor = [500_000, 4_000_000][dice.below(2)]
                plan.will = ClientPlan.WillPlan(
                    "plant/browser/gone", dice.coin() ? .atLeastOnce : .exactlyOnce)
            },
        ]
    }

    /// Who is left out by the family, beside those that are absent.
    var notInvited: [Int] {
        switch family {
        case .elision: [5, 6, 9, 10]
        case .shared, .mixed: []
        // Who never comes back for what waits for it keeps a small disk full for ever.
        case .full: [9, 10]
        case .compaction, .paging, .uplink, .damage, .clocks, .storms: seed % 3 == 0 ? [] : [9]
        }
    }

    private func publishing(_ root: String, _ dice: inout Dice) -> ClientPlan.Publishing {
        var publishing = ClientPlan.Publishing(
            ["\(root)/a", "\(root)/b"], every: UInt64([150_000, 500_000, 2_000_000][dice.below(3)]))
        publishing.burst = [1, 1, 1, 8][dice.below(4)]
        if family == .full {
            publishing.every = 150_000
            publishing.burst = 8
        }
        publishing.qosShares =
            [[1, 2, 2], [0, 1, 0], [0, 0, 1], [0, 6, 1]][family == .elision ? 3 : dice.below(4)]
        publishing.retainedPercent = [0, 0, 10][dice.below(3)]
        publishing.clearingPercent = 10
        publishing.paddingMax = [20, 300, 3000][family == .compaction || family == .full ? 2 : dice.below(3)]
        publishing.window = [1, 5, 20][dice.below(3)]
        publishing.usesAliases = dice.coin()
        publishing.reusesIdentifiers = dice.coin()
        if family == .clocks || dice.below(5) == 0 {
            publishing.expiringPercent = 30
            publishing.expirySeconds = UInt32([2, 20, 100][dice.below(3)])
        }
        return publishing
    }

    private func subscription(_ filter: String, _ qos: QoS) -> ClientPlan.Subscription {
        guard let parsed = TopicFilter(filter) else { preconditionFailure("not a Topic Filter: \(filter)") }
        // As a bridge does, which subscribes again whenever it connects.
        let handling = seed % 4 == 3 ? RetainHandling.sendIfNewSubscription : .sendOnSubscribe
        return ClientPlan.Subscription(
            SubscriptionRequest(filter: parsed, maximumQoS: qos, retainHandling: handling))
    }

    // MARK: The cloud

    var cloud: CloudPlan {
        var dice = Dice(seed ^ 0xC10D)
        var plan = CloudPlan(author: 1000)
        plan.topics = ["commands/valve", "commands/lamp"]
        plan.publishesEvery = UInt64([400_000, 2_000_000][dice.below(2)])
        plan.version = cloudVersion
        plan.paddingMax = [20, 600][dice.below(2)]
        plan.receiveMaximum = [nil, 20, 3, 1][dice.below(4)]
        plan.topicAliasMaximum = [nil, 8][dice.below(2)]
        plan.answersWithin = [0, 50_000, 500_000][dice.below(3)]
        guard family == .uplink || dice.below(3) == 0 else { return plan }
        plan.endsConnectionsAfter = dice.coin() ? 10_000_000 : nil
        plan.forgetsPercent = [0, 10][dice.below(2)]
        plan.goesBackPercent = [0, 0, 10][dice.below(3)]
        plan.isAbsentPercent = [0, 20][dice.below(2)]
        plan.turnsAwayPercent = [0, 10][dice.below(2)]
        plan.refusesPercent = [0, 0, 5][dice.below(3)]
        plan.capsQoSPercent = [0, 0, 20][dice.below(3)]
        plan.maximumPacketSize = dice.below(6) == 0 ? 900 : nil
        plan.acknowledgesQoS2AsQoS1 = dice.below(8) == 0
        plan.stuttersPercent = [0, 0, 5][dice.below(3)]
        if family == .full {
            // Dead letters do, too.
            plan.refusesPercent = 0
            plan.maximumPacketSize = nil
        }
        return plan
    }

    private var cloudVersion: ProtocolVersion { seed % 7 == 3 ? .v3_1_1 : .v5_0 }

    var uplinkPlan: UplinkPlan {
        UplinkPlan(
            name: "cloud", addresses: [UplinkAddress(host: "", port: 1)],
            topicAliasMax: seed % 2 == 0 ? 4 : 0,
            clientIdentifier: "plant-7", version: cloudVersion, keepAliveSeconds: 0,
            inFlightMaximum: UInt16([1, 5, 100][Int(seed / 3 % 3)]),
            subscriptions: [UplinkPlan.Subscription(filter("commands/#"), .exactlyOnce)],
            backoffMinMilliseconds: 100, backoffMaxMilliseconds: 3000, ackWatchdogSeconds: 20)
    }

    var routes: UplinkRoutes {
        var dice = Dice(seed ^ 0x4007)
        var out = UplinkRoutes.Route(filter: filter("plant/#"), rename: nil, maximumQoS: .exactlyOnce)
        if dice.below(5) == 0 { out.maximumQoS = .atLeastOnce }
        var routes = [out]
        if dice.below(3) == 0 {
            // What comes from the press has a lane of its own.
            var lane = UplinkRoutes.Route(
                filter: filter("plant/press/#"), rename: nil, maximumQoS: out.maximumQoS)
            lane.priority = [.high, .low][dice.below(2)]
            lane.isLiveFirst = dice.coin()
            routes.insert(lane, at: 0)
        }
        var uplink = UplinkRoutes(
            name: "cloud", out: routes,
            in: [.init(filter: filter("commands/#"), rename: nil, maximumQoS: .exactlyOnce)])
        if dice.below(4) == 0 {
            uplink.drain = UplinkRoutes.Drain(messagesPerSecond: UInt32(20 + dice.below(100)))
        }
        return uplink
    }

    private func filter(_ text: String) -> TopicFilter {
        guard let filter = TopicFilter(text) else { preconditionFailure("not a Topic Filter: \(text)") }
        return filter
    }
}
