import GatewayService
import ServiceStart
import ServingTypes

@main
struct Main {
    static func main() async {
        await run(.gateway, settings: GatewaySettings.init, services: GatewayMain.services)
    }
}
