from mandeldask.cli import main

main()
