from radapter_cli.main import run

run()
